"""Compares two models on one task: scores, interval, effect and p-value, before any correction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from benchmarks.scoring.results import Result
from benchmarks.significance.bootstrap import (
    bootstrap_means,
    bootstrap_spearman,
    percentile_interval,
    shifted_bootstrap_p,
)
from benchmarks.significance.comparison import CompareConfig, Difference
from benchmarks.significance.paired import (
    EXACT_ITEMS,
    SIGN_TESTS,
    TESTS,
    crossed_test,
    effect_size,
    smallest_wilcoxon_p,
)
from retrieval.errors import UsageError, count_noun
from retrieval.scores import Doubles, spearman

Ids: TypeAlias = tuple[str, ...]


class TaskPairs:
    """Compares pairs of models on one task. A model is resampled once for all its pairs.

    Parameters
    ----------
    results : by model; all of one task and one metric.
    metric : what is compared.
    config : test, level, resamples and seed.
    """

    def __init__(self, results: Mapping[str, Result], metric: str, config: CompareConfig) -> None:
        self._results = results
        self._metric = metric
        self._config = config
        self._sts = next(iter(results.values())).task_type == "sts"
        self._samples: dict[Ids, dict[str, Doubles]] = {}

    def compare(self, first: str, second: str) -> Difference:
        """Return the difference, with a ``p_corrected`` of NaN.

        Raises
        ------
        UsageError : the two have no item in common, or different gold scores.
        """
        found = self._describe(first, second)
        reason = self._find_obstacle(self._results[first], self._results[second])
        if reason:
            return replace(found, note=reason)
        ids = _common_ids(self._results[first], self._results[second])
        if self._results[first].draws:
            return self._test_draws(found, ids)
        left, right = (self._take(model, ids) for model in (first, second))
        found = replace(found, items=len(ids))
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            return replace(found, note="the score of an item is undefined, so there is no test")
        if self._sts:
            return self._test_sts(found, ids, left, right)
        return self._test_items(found, ids, left, right)

    def _describe(self, first: str, second: str) -> Difference:
        """Return the difference without a test."""
        one, other = (self._results[model] for model in (first, second))
        scores = one.metrics[self._metric], other.metrics[self._metric]
        return Difference(
            task=one.task,
            task_type=one.task_type,
            metric=self._metric,
            first=first,
            second=second,
            first_score=scores[0],
            second_score=scores[1],
            difference=scores[0] - scores[1],
            items=min(len(one.item_ids), len(other.item_ids)),
        )

    def _find_obstacle(self, first: Result, second: Result) -> str:
        """Return why there can be no test, "" where nothing is seen yet."""
        if self._sts and self._metric != "spearman":
            return "on STS tasks only 'spearman' is tested"
        if any(not math.isfinite(result.metrics[self._metric]) for result in (first, second)):
            return "a score is undefined, so there is no test"
        if any(not (result.items or result.draws) for result in (first, second)):
            return "no scores of single items were kept, so there is no test"
        if bool(first.draws) != bool(second.draws):
            return (
                "one was scored by text and the other, earlier, by draw, so there is no test; run "
                "'millpond bench' again for both"
            )
        if first.draws:
            kept = all(len(one.draws.get(self._metric, ())) > 1 for one in (first, second))
            return "" if kept else "no scores of single draws were kept, so there is no test"
        needed = ("cosine", "gold") if self._sts else (self._metric,)
        if any(not result.items.get(name) for name in needed for result in (first, second)):
            return "no scores of single items were kept, so there is no test"
        return ""

    def _take(self, model: str, ids: Ids) -> Doubles:
        return _align(self._results[model], "cosine" if self._sts else self._metric, ids)

    def _test_items(self, found: Difference, ids: Ids, left: Doubles, right: Doubles) -> Difference:
        """Return the difference with a test of the mean over items."""
        found = self._restrict(found, float(left.mean()), float(right.mean()))
        if len(ids) == 1:
            return _add_note(found, "one item, so there is no test")
        values = left - right
        p = TESTS[self._config.test](values, self._config.resamples, self._config.seed)
        found = self._with_interval(replace(found, p=p, effect_size=effect_size(values)), ids)
        if math.isnan(p):
            return _add_note(found, "all differences are equal, so t is undefined")
        if self._config.test not in SIGN_TESTS:
            return found
        least = smallest_wilcoxon_p(len(ids))
        if self._config.test == "randomisation" and len(ids) > EXACT_ITEMS:
            least = max(least, 1 / (self._config.resamples + 1))
        found = replace(found, smallest_p=least)
        if least >= self._config.alpha:
            items = count_noun(len(ids), "item")
            found = _add_note(found, f"{items}: p cannot be below {least:.3g}")
        return found

    def _test_draws(self, found: Difference, ids: Ids) -> Difference:
        """Return the difference with a test over test texts and draws of training examples."""
        one, other = (self._results[model] for model in (found.first, found.second))
        sizes = [len(result.draws[self._metric]) for result in (one, other)]
        if sizes[0] != sizes[1]:
            return replace(found, note=f"{sizes[0]} and {sizes[1]} draws, so there is no test")
        by_draw = np.subtract(one.draws[self._metric], other.draws[self._metric])
        by_item = np.empty(0)
        if all(self._metric in result.items for result in (one, other)):
            by_item = self._take(found.first, ids) - self._take(found.second, ids)
            found = self._restrict(found, *(self._take(m.model, ids).mean() for m in (one, other)))
        else:
            found = _add_note(found, "tested over draws of training examples alone")
        if not (np.isfinite(by_item).all() and np.isfinite(by_draw).all()):
            return replace(found, note="the score of an item is undefined, so there is no test")
        test = crossed_test(by_item, by_draw, alpha=self._config.alpha)
        if math.isnan(test.p):
            return _add_note(found, "all differences are equal, so t is undefined")
        return replace(
            found,
            items=len(ids) if by_item.size else len(by_draw),
            p=test.p,
            low=found.difference - test.half_width,
            high=found.difference + test.half_width,
            effect_size=effect_size(by_item if by_item.size else by_draw),
        )

    def _test_sts(self, found: Difference, ids: Ids, left: Doubles, right: Doubles) -> Difference:
        """Return the difference with a bootstrap test of two correlations."""
        gold = self._gold(found, ids)
        one, other = spearman(left, gold), spearman(right, gold)
        found = self._restrict(found, one, other)
        if math.isnan(one) or math.isnan(other):
            reason = "a score is undefined" if len(ids) > 1 else "one item"
            return _add_note(found, f"{reason}, so there is no test")
        samples = self._resample(ids)
        p = shifted_bootstrap_p(one - other, samples[found.first] - samples[found.second])
        least = 1 / (self._config.bootstrap_resamples + 1)
        return self._with_interval(replace(found, p=p, smallest_p=least), ids)

    def _gold(self, found: Difference, ids: Ids) -> Doubles:
        """Return the gold scores, which two models must share."""
        first, second = (
            _align(self._results[model], "gold", ids) for model in (found.first, found.second)
        )
        if not np.array_equal(first, second):
            raise UsageError(
                f"{found.first!r} and {found.second!r} have different gold scores for "
                f"{found.task!r}, so they cannot be compared. Run 'millpond bench' again for both."
            )
        return first

    def _restrict(self, found: Difference, first: float, second: float) -> Difference:
        """Return the scores on the common items, with a note, if a model has others too."""
        counts = [len(self._results[model].item_ids) for model in (found.first, found.second)]
        if set(counts) == {found.items}:
            return found
        note = (
            f"only {count_noun(found.items, 'item is', 'items are')} in common, of "
            f"{counts[0]:,} and {counts[1]:,}; scores and test are of these"
        )
        return _add_note(
            replace(found, first_score=first, second_score=second, difference=first - second), note
        )

    def _with_interval(self, found: Difference, ids: Ids) -> Difference:
        samples = self._resample(ids)
        low, high = percentile_interval(
            samples[found.first] - samples[found.second], self._config.alpha
        )
        return replace(found, low=low, high=high)

    def _resample(self, ids: Ids) -> Mapping[str, Doubles]:
        """Return the bootstrapped score of every model that has these items."""
        if ids not in self._samples:
            wanted = set(ids)
            rows = {
                model: self._take(model, ids)
                for model, result in self._results.items()
                if not self._find_obstacle(result, result) and wanted <= set(result.item_ids)
            }
            rows = {model: row for model, row in rows.items() if np.isfinite(row).all()}
            scores = np.stack(list(rows.values()))
            count, seed = self._config.bootstrap_resamples, self._config.seed
            if self._sts:
                gold = _align(self._results[next(iter(rows))], "gold", ids)
                samples = bootstrap_spearman(scores, gold, resamples=count, seed=seed)
            else:
                samples = bootstrap_means(scores, resamples=count, seed=seed)
            self._samples[ids] = dict(zip(rows, samples, strict=True))
        return self._samples[ids]


def _common_ids(first: Result, second: Result) -> Ids:
    """Return the ids of both, in the order of the first."""
    ids = tuple(first.item_ids)
    if ids == tuple(second.item_ids):
        return ids
    others = set(second.item_ids)
    common = tuple(item for item in ids if item in others)
    if not common:
        raise UsageError(
            f"{first.model!r} and {second.model!r} have no item of {first.task!r} in common, so "
            f"they cannot be compared. Run 'millpond bench' again for both on the same data."
        )
    return common


def _align(result: Result, name: str, ids: Ids) -> Doubles:
    """Return a row of items in the order of the ids."""
    values = np.asarray(result.items[name], dtype=np.float64)
    if tuple(result.item_ids) == ids:
        return values
    position = {item: number for number, item in enumerate(result.item_ids)}
    return values[[position[item] for item in ids]]


def _add_note(found: Difference, note: str) -> Difference:
    return replace(found, note=f"{found.note}; {note}" if found.note else note)
