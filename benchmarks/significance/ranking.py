"""Models ranked over tasks: which can be told apart, in groups, with intervals of their ranks.

Needs one score for each model and task, nothing more, so imported leaderboards can be tested.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from benchmarks.optional import import_optional
from benchmarks.scoring.results import Result
from benchmarks.significance.bootstrap import bootstrap_means, bootstrap_spearman
from benchmarks.significance.comparison import CompareConfig, Ranked, Ranking, TaskTest
from benchmarks.significance.correction import CORRECTIONS
from benchmarks.significance.paired import (
    EXACT_ITEMS,
    TIE_DECIMALS,
    randomisation_test,
    smallest_wilcoxon_p,
    wilcoxon_test,
)
from retrieval.errors import count_noun
from retrieval.scores import Doubles

ALL_PAIRS_OF = 40
"""Up to so many models all pairs are listed, beyond the neighbours in the ranking."""

RESAMPLES = 2_000
_ITEM_RESAMPLES = 1_000


def rank_models(results: Sequence[Result], config: CompareConfig) -> Ranking | None:
    """Return the models that have a score on every task, ranked by the mean over the tasks.

    A group starts with its best model and holds those after it that Wilcoxon's signed-rank test
    over tasks, corrected for all pairs of models, does not tell apart from that best one; the
    first that it does begins the next group. The interval of a rank is a bootstrap of the tasks,
    and of the items within each drawn task where all models have scores of the same items.

    Parameters
    ----------
    results : one for each model and task.
    config : alpha, correction, baseline, ``adjacent``, resamples and seed.

    Returns
    -------
    None where fewer than two tasks or two models with all tasks are left.

    Raises
    ------
    MissingDependencyError : SciPy is not installed.
    """
    table: dict[str, dict[str, Result]] = {}
    for one in results:
        if math.isfinite(one.main_score):
            table.setdefault(one.model, {})[one.task] = one
    tasks = list(dict.fromkeys(one.task for one in results))
    whole = [model for model, row in table.items() if len(row) == len(tasks)]
    if len(tasks) < 2 or len(whole) < 2:
        return None
    scores = np.array([[table[model][task].main_score for task in tasks] for model in whole])
    best_first = np.argsort(-scores.mean(axis=1), kind="stable")
    models, scores = [whole[place] for place in best_first], scores[best_first]
    able = smallest_wilcoxon_p(len(tasks)) * math.comb(len(models), 2) < config.alpha
    if config.correction != "holm":
        able = smallest_wilcoxon_p(len(tasks)) < config.alpha
    samples, hierarchical = _resample([[table[m][t] for t in tasks] for m in models], config.seed)
    pairs, listed = _choose_pairs(models, config)
    return Ranking(
        tasks=tasks,
        rows=_rank(models, scores, samples, table, config, able),
        tests=_test(models, scores, samples, pairs, config),
        listed=listed,
        smallest_p=smallest_wilcoxon_p(len(tasks)),
        grouped=able,
        hierarchical=hierarchical,
        notes=_note(table, models, tasks, pairs, able, config),
    )


def wilcoxon_tests(differences: Doubles) -> Doubles:
    """Return the p-values of ``wilcoxon_test`` of many rows, (P,), from (P, n) differences.

    Rows of more than ``EXACT_ITEMS`` differences without ties or zeros are exact up to 50, the
    others have SciPy's normal approximation with the correction for ties.
    """
    rows = np.round(np.atleast_2d(np.asarray(differences, dtype=np.float64)), TIE_DECIMALS)
    if rows.shape[1] <= EXACT_ITEMS:
        return np.array([wilcoxon_test(row) for row in rows])
    found = np.ones(len(rows))
    ordered = np.sort(np.abs(rows), axis=1)
    plain = (ordered[:, 0] > 0) & (np.diff(ordered, axis=1) > 0).all(axis=1)
    plain &= rows.shape[1] <= 50
    stats = import_optional("scipy.stats", "This test")
    for chosen, method in ((plain, "exact"), (~plain & rows.any(axis=1), "asymptotic")):
        if chosen.any():
            found[chosen] = stats.wilcoxon(
                rows[chosen], zero_method="pratt", method=method, axis=1
            ).pvalue
    return found


def _choose_pairs(
    models: Sequence[str], config: CompareConfig
) -> tuple[list[tuple[int, int]], str]:
    """Return the places of the listed pairs, better first, and what they are."""
    count = len(models)
    if config.adjacent:
        return [(place, place + 1) for place in range(count - 1)], "neighbours"
    if config.baseline in models:
        base = models.index(config.baseline)
        return [(min(base, n), max(base, n)) for n in range(count) if n != base], "baseline"
    if count <= ALL_PAIRS_OF:
        return list(combinations(range(count), 2)), "pairs"
    return [(place, place + 1) for place in range(count - 1)], "neighbours"


def _rank(
    models: Sequence[str],
    scores: Doubles,
    samples: Doubles,
    table: Mapping[str, Mapping[str, Result]],
    config: CompareConfig,
    able: bool,
) -> list[Ranked]:
    ends = [
        np.quantile(_ranks(samples, tied), share, axis=1, method="nearest")
        for tied, share in (("min", config.alpha / 2), ("max", 1 - config.alpha / 2))
    ]
    groups = _group(scores, config) if able else [0] * len(models)
    return [
        Ranked(
            model=model,
            rank=place + 1,
            low=int(ends[0][place]),
            high=int(ends[1][place]),
            group=groups[place],
            mean=float(scores[place].mean()),
            imported=any(one.source for one in table[model].values()),
        )
        for place, model in enumerate(models)
    ]


def _ranks(samples: Doubles, tied: str) -> Doubles:
    """Return the ranks of the models in each resample, those of equal means all least or most."""
    stats = import_optional("scipy.stats", "This test")
    ranks: Doubles = stats.rankdata(-samples.round(TIE_DECIMALS), method=tied, axis=0)
    return ranks


def _group(scores: Doubles, config: CompareConfig) -> list[int]:
    """Return the group of each model, the best first, from 1."""
    first, second = np.triu_indices(len(scores), 1)
    adjusted = CORRECTIONS[config.correction](
        wilcoxon_tests(scores[first] - scores[second]).tolist()
    )
    apart = np.zeros((len(scores), len(scores)), dtype=bool)
    apart[first, second] = adjusted < config.alpha
    groups, leader = [1], 0
    for place in range(1, len(scores)):
        if apart[leader, place]:
            leader = place
        groups.append(groups[-1] + (leader == place))
    return groups


def _test(
    models: Sequence[str],
    scores: Doubles,
    samples: Doubles,
    pairs: Sequence[tuple[int, int]],
    config: CompareConfig,
) -> list[TaskTest]:
    first, second = np.array(pairs).T
    differences = scores[first] - scores[second]
    correct = CORRECTIONS[config.correction]
    p = wilcoxon_tests(differences)
    flips = [
        randomisation_test(row, resamples=config.resamples, seed=config.seed) for row in differences
    ]
    adjusted, adjusted_flips = correct(p.tolist()), correct(flips)
    ends = [
        np.quantile(samples[one] - samples[other], [config.alpha / 2, 1 - config.alpha / 2])
        for one, other in pairs
    ]
    return [
        TaskTest(
            first=models[one],
            second=models[other],
            difference=float(differences[place].mean()),
            low=float(ends[place][0]),
            high=float(ends[place][1]),
            deviation=float(differences[place].std(ddof=1)),
            p=float(p[place]),
            p_corrected=float(adjusted[place]),
            p_permutation=float(flips[place]),
            p_permutation_corrected=float(adjusted_flips[place]),
            significant=bool(adjusted[place] < config.alpha),
        )
        for place, (one, other) in enumerate(pairs)
    ]


def _resample(rows: Sequence[Sequence[Result]], seed: int) -> tuple[Doubles, bool]:
    """Return resampled means over tasks, (models, R), and whether items were resampled too.

    Source of the two stages: Davison and Hinkley 1997, "Bootstrap Methods and their Application",
    section 3.8, its first strategy: both with replacement.
    """
    generator = np.random.default_rng(seed)
    tasks = len(rows[0])
    drawn = generator.integers(0, tasks, (RESAMPLES, tasks))
    scores = np.array([[one.main_score for one in row] for row in rows])
    by_task = [_resample_items([row[task] for row in rows], seed + task) for task in range(tasks)]
    if any(one is None for one in by_task):
        counts = np.stack([np.bincount(row, minlength=tasks) for row in drawn]) / tasks
        plain: Doubles = scores @ counts.T
        return plain, False
    stacked = np.stack([one for one in by_task if one is not None])
    total = np.zeros((RESAMPLES, len(rows)))
    for slot in range(tasks):
        chosen = generator.integers(0, _ITEM_RESAMPLES, RESAMPLES)
        total += stacked[drawn[:, slot], :, chosen]
    return total.T / tasks, True


def _resample_items(results: Sequence[Result], seed: int) -> Doubles | None:
    """Return a task's scores on resampled items, (models, R); None without items in common."""
    main, sts = results[0].main_metric, results[0].task_type == "sts"
    name = "cosine" if sts else main
    ids = list(results[0].item_ids)
    rows = [row for one in results if (row := one.items.get(name))]
    if not ids or any(list(one.item_ids) != ids or one.main_metric != main for one in results):
        return None
    if len(rows) < len(results) or not np.isfinite(np.array(rows, dtype=np.float64)).all():
        return None
    if sts:
        gold = results[0].items["gold"]
        found = bootstrap_spearman(rows, gold, resamples=_ITEM_RESAMPLES, seed=seed)
        return np.asarray(np.nan_to_num(found, nan=0.0), dtype=np.float64)
    return bootstrap_means(rows, resamples=_ITEM_RESAMPLES, seed=seed)


def _note(
    table: Mapping[str, Mapping[str, Result]],
    models: Sequence[str],
    tasks: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    able: bool,
    config: CompareConfig,
) -> list[str]:
    """Return what is not ranked, and what so few tasks can't show."""
    notes = []
    without = [model for model in table if model not in set(models)]
    if without:
        lacking = Counter(task for model in without for task in tasks if task not in table[model])
        worst, count = lacking.most_common(1)[0]
        names = f" ({', '.join(without)})" if len(without) <= 5 else ""
        notes.append(
            f"{count_noun(len(without), 'model')} without a score on every task "
            f"{'is' if len(without) == 1 else 'are'} not ranked{names}; {count:,} of them "
            f"{'lacks' if count == 1 else 'lack'} {worst}"
        )
    least = smallest_wilcoxon_p(len(tasks))
    if not able:
        total = math.comb(len(models), 2)
        notes.append(
            f"No two models could be told apart, whatever their scores: {len(tasks)} tasks give no "
            f"p below {least:.2g}, and {count_noun(total, 'pair is', 'pairs are')} corrected "
            f"together, so there are no groups"
        )
    if config.correction == "holm" and least * len(pairs) >= config.alpha:
        notes.append(
            f"None of the {count_noun(len(pairs), 'test')} over {len(tasks)} tasks could be "
            f"significant: p is {least:.2g} or more before correction"
        )
    return notes
