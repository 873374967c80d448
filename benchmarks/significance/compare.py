"""Compares models on the tasks that they share, and corrects for the number of comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Any, TypeAlias

from benchmarks.scoring.results import TASK_TYPES, Result
from benchmarks.significance.comparison import (
    CompareConfig,
    Comparison,
    Difference,
    TaskTypeDifference,
)
from benchmarks.significance.correction import CORRECTIONS
from benchmarks.significance.paired import EXACT_ITEMS, smallest_wilcoxon_p, wilcoxon_test
from benchmarks.significance.pairs import TaskPairs
from benchmarks.significance.ranking import rank_models
from retrieval import Progress
from retrieval.errors import UnknownNameError, UsageError, count_noun
from retrieval.protocols import no_progress

_GAPS_SHOWN = 10
_ITEMS_OF_ONE_SET = {"classification": "draws", "clustering": "splits"}

_Table: TypeAlias = Mapping[str, Mapping[str, Result]]
"""Task to model to result."""


def compare(
    results: Sequence[Result],
    config: CompareConfig | None = None,
    *,
    progress: Progress = no_progress,
) -> Comparison:
    """Return which differences between models are significant, per task and per task type.

    Items are matched by their ids. A correction runs over all tests of a task type.

    Parameters
    ----------
    results : of two models or more, as ``read_results`` returns them.
    config : the defaults of ``CompareConfig`` where None.
    progress : is told how many more pairs of models on a task are done.

    Raises
    ------
    UsageError : fewer than two models, no task that two of them share, two results of one model
        and task, or two models without a common item on a task.
    UnknownNameError : no result is of the baseline, or none has the metric item by item.
    MissingDependencyError : the test needs SciPy, which is not installed.
    """
    config = config or CompareConfig()
    table = _arrange(results)
    models = list(dict.fromkeys(result.model for result in results))
    _check_models(models, config)
    metrics = _choose_metrics(results, config)
    notes = _note_gaps(results, metrics, config.metric)
    raw: list[Difference] = []
    for task, row in table.items():
        chosen = {model: metrics[task, model] for model in row if (task, model) in metrics}
        for difference in _compare_task(row, chosen, config, notes):
            raw.append(difference)
            progress(1)
    ranking = rank_models(_by_metric(results, config.metric), config)
    if not raw and ranking is None:
        raise UsageError(
            "No task has comparable results of two models. Type: millpond bench --model M "
            "--task T --out RESULTS, with a task that another model has."
        )
    differences, task_types = _correct(raw, list(_compare_task_types(raw, config)), config)
    notes += _note_limits(differences, task_types, config)
    return Comparison(config, models, list(table), differences, task_types, notes, ranking)


def compare_nothing(results: Sequence[Result], config: CompareConfig) -> Comparison:
    """Return a comparison without a pair, so that the scores of one model make a report too."""
    models, tasks = ({getattr(one, name): None for one in results} for name in ("model", "task"))
    note = "One model has results, so there was no difference to test."
    return Comparison(config, list(models), list(tasks), (), (), (note,))


def _arrange(results: Sequence[Result]) -> _Table:
    table: dict[str, dict[str, Result]] = {}
    for result in results:
        row = table.setdefault(result.task, {})
        if result.model in row:
            raise UsageError(
                f"{result.model!r} has two results for {result.task!r}; expected one. Delete "
                f"the other."
            )
        row[result.model] = result
    return table


def _by_metric(results: Sequence[Result], metric: str | None) -> list[Result]:
    """Return the results that have a metric, as their main one; all of them for None."""
    if metric is None:
        return list(results)
    return [replace(one, main_metric=metric) for one in results if metric in one.metrics]


def _check_models(models: Sequence[str], config: CompareConfig) -> None:
    if config.baseline is not None and config.baseline not in models:
        raise UnknownNameError("baseline", config.baseline, models)
    if len(models) < 2:
        raise UsageError(
            f"A comparison needs results of two models, and there are {len(models)}"
            f"{''.join(f' ({model})' for model in models)}. Type: millpond bench --model M "
            f"--task T --out RESULTS, with another model."
        )


def _choose_metrics(results: Sequence[Result], config: CompareConfig) -> dict[tuple[str, str], str]:
    """Return the compared metric by task and model, without results that lack it."""
    if config.metric is None:
        return {(result.task, result.model): result.main_metric for result in results}
    known = {(result.task, result.model): _testable(result) for result in results}
    found = {key: config.metric for key, names in known.items() if config.metric in names}
    if not found:
        names = list(dict.fromkeys(name for row in known.values() for name in row))
        raise UnknownNameError("metric", config.metric, names)
    return found


def _testable(result: Result) -> list[str]:
    """Return the metrics whose items a result keeps."""
    if result.task_type == "sts":
        return ["spearman"] if "spearman" in result.metrics else []
    return [name for name in result.metrics if name in result.items or name in result.draws]


def _compare_task(
    row: Mapping[str, Result],
    metrics: Mapping[str, str],
    config: CompareConfig,
    notes: list[str],
) -> Iterator[Difference]:
    """Yield every pair of one task; models whose main metrics differ are noted, not compared."""
    groups = {
        metric: TaskPairs({m: row[m] for m in metrics if metrics[m] == metric}, metric, config)
        for metric in dict.fromkeys(metrics.values())
    }
    single = [model for model in metrics if row[model].item_ids or not row[model].source]
    for first, second in _pairs(single, config.baseline):
        if metrics[first] == metrics[second]:
            yield groups[metrics[first]].compare(first, second)
        else:
            notes.append(
                f"{row[first].task}: the main metric of {first!r} is {metrics[first]!r}, that of "
                f"{second!r} is {metrics[second]!r}, so they are not compared. Name one metric."
            )


def _pairs(models: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(combinations(models, 2))
    return [(model, baseline) for model in models if model != baseline and baseline in models]


def _compare_task_types(
    differences: Sequence[Difference], config: CompareConfig
) -> Iterator[TaskTypeDifference]:
    """Yield, for each task type and pair, a test over the tasks on which both have a score."""
    grouped: dict[tuple[str, str, str], list[Difference]] = {}
    for one in differences:
        if math.isfinite(one.difference):
            grouped.setdefault((one.task_type, one.first, one.second), []).append(one)
    for task_type, first, second in sorted(grouped, key=lambda key: TASK_TYPES.index(key[0])):
        rows = grouped[task_type, first, second]
        if len(rows) < 2:
            continue
        means = fmean(one.first_score for one in rows), fmean(one.second_score for one in rows)
        least = smallest_wilcoxon_p(len(rows))
        yield TaskTypeDifference(
            task_type=task_type,
            first=first,
            second=second,
            tasks=[one.task for one in rows],
            first_mean=means[0],
            second_mean=means[1],
            difference=means[0] - means[1],
            p=wilcoxon_test([one.difference for one in rows]),
            smallest_p=least,
            note=f"{count_noun(len(rows), 'task')}: p cannot be below {least:.3g}"
            if least >= config.alpha
            else "",
        )


def _correct(
    differences: Sequence[Difference],
    task_types: Sequence[TaskTypeDifference],
    config: CompareConfig,
) -> tuple[list[Difference], list[TaskTypeDifference]]:
    """Return both with corrected p-values; a correction runs over all tests of a family.

    A test over a task type that cannot reach alpha, whatever the scores are, is no chance of a
    false alarm, so it does not make the others harder to pass (Tarone 1990, doi 10.2307/2531456).
    """
    rows: list[Difference | TaskTypeDifference] = [*differences, *task_types]
    families: dict[str, list[int]] = {}
    for place, one in enumerate(rows):
        families.setdefault(one.task_type if config.family == "task-type" else "", []).append(place)
    for places in families.values():
        own = [rows[place] for place in places]
        adjusted = CORRECTIONS[config.correction]([_able(one, one.p, config) for one in own])
        best = CORRECTIONS[config.correction]([_able(one, one.smallest_p, config) for one in own])
        for place, one, p, least in zip(places, own, adjusted, best, strict=True):
            changes = dict[str, Any](p_corrected=float(p), significant=bool(p < config.alpha))
            if isinstance(one, Difference):
                changes["had_a_chance"] = math.isnan(least) or bool(least < config.alpha)
            rows[place] = replace(one, **changes)
    return (
        [one for one in rows if isinstance(one, Difference)],
        [one for one in rows if isinstance(one, TaskTypeDifference)],
    )


def _able(one: Difference | TaskTypeDifference, p: float, config: CompareConfig) -> float:
    """Return a p-value, NaN for a test that does not count in the correction."""
    out = isinstance(one, TaskTypeDifference) and one.smallest_p >= config.alpha
    return math.nan if out or math.isnan(one.p) else p


def _note_gaps(
    results: Sequence[Result], metrics: Mapping[tuple[str, str], str], metric: str | None
) -> list[str]:
    """Return what is not compared, and which models are one and the same.

    Parameters
    ----------
    results : all there are.
    metrics : by task and model, what is compared; lacks what is left out.
    metric : the one that was asked for, None for each task's own.
    """
    tasks = list(dict.fromkeys(result.task for result in results))
    compared = [task for task in tasks if any(key[0] == task for key in metrics)]
    notes = []
    left_out = [task for task in tasks if task not in compared]
    if left_out:
        notes.append(f"Left out, since {metric!r} is not among their scores: {', '.join(left_out)}")
    what = "result" if metric is None else f"{metric!r}"
    gaps: list[str] = []
    for model in dict.fromkeys(result.model for result in results):
        missing = [task for task in compared if (task, model) not in metrics]
        if missing:
            gaps.append(f"{model} has no {what} on {', '.join(missing)}")
    if len(gaps) <= _GAPS_SHOWN:
        notes += gaps
    else:
        notes.append(f"{len(gaps):,} models have no {what} on one task or more")
    return notes + _note_equal(results)


def _note_equal(results: Sequence[Result]) -> list[str]:
    """Return which names stand for the same model."""
    names: dict[str, list[str]] = {}
    for result in results:
        same = names.setdefault(result.fingerprint.digest, [])
        if result.model not in same:
            same.append(result.model)
    return [f"These are one model: {', '.join(same)}" for same in names.values() if len(same) > 1]


def _note_limits(
    differences: Sequence[Difference],
    task_types: Sequence[TaskTypeDifference],
    config: CompareConfig,
) -> list[str]:
    """Return what a reader must not conclude, and what keeps p-values from being low enough."""
    tested = [one for one in differences if not math.isnan(one.p)]
    notes = [
        f"{task_type.capitalize()} is tested over {items} of one data set, so a significant "
        f"difference holds for that data set only"
        for task_type, items in _ITEMS_OF_ONE_SET.items()
        if any(one.task_type == task_type and one.items <= EXACT_ITEMS for one in tested)
    ]
    every: list[Difference | TaskTypeDifference] = [*differences, *task_types]
    hopeless: dict[tuple[float, int], list[Difference]] = {}
    for one in tested:
        if not one.had_a_chance and one.smallest_p < config.alpha:
            family = one.task_type if config.family == "task-type" else ""
            count = sum(
                not math.isnan(other.p_corrected) and family in ("", other.task_type)
                for other in every
            )
            hopeless.setdefault((one.smallest_p, count), []).append(one)
    return notes + [
        _describe_no_chance(least, count, rows, config) for (least, count), rows in hopeless.items()
    ]


def _describe_no_chance(
    least: float, count: int, rows: Sequence[Difference], config: CompareConfig
) -> str:
    """Return why no difference of some tasks, however large, could be significant."""
    tasks = ", ".join(dict.fromkeys(one.task for one in rows))
    why = (
        f"No difference could be significant on {tasks}, however large: no p is below "
        f"{least:.2g}, and {count_noun(count, 'test is', 'tests are')} corrected together"
    )
    enough = 10 ** math.ceil(math.log10(count / config.alpha + 1))
    if rows[0].task_type == "sts":
        return f"{why}. Type: --bootstrap-resamples {enough}"
    if config.test == "randomisation" and rows[0].items > EXACT_ITEMS:
        return f"{why}. Type: --resamples {enough}"
    return f"{why}. Fewer comparisons (--baseline) have a chance; --test t has no such bound"
