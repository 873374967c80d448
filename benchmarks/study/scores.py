"""The scores of a study: means over seeds, intervals over items, and paired tests of task types.

Items, not seeds, are what the tests resample. Where items have scores of their own (queries,
draws, splits) these are averaged over the seeds of a variant first. A pair of an STS task has
none, so there the correlations of the seeds are averaged within each resample. How much a score
depends on the seed is the standard deviation between seeds, which stands beside it and is in no
test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.scoring.results import TASK_TYPES, Result
from benchmarks.significance.bootstrap import (
    bootstrap_means,
    bootstrap_spearman,
    percentile_interval,
    shifted_bootstrap_p,
)
from benchmarks.significance.correction import adjust_holm
from benchmarks.significance.paired import randomisation_test
from benchmarks.study.config import StudyConfig
from benchmarks.study.runs import StudyRun
from retrieval.scores import Doubles

ALL_TASK_TYPES = "all task types"
"""The mean over the task types, each weighing the same."""


@dataclass(frozen=True)
class TaskTypeScore:
    """A variant on a task type: the mean over its tasks and seeds.

    Attributes
    ----------
    low, high : bootstrap interval over items, at confidence 1 - alpha.
    seed_deviation : standard deviation between seeds; NaN with one seed.
    """

    score: float
    low: float
    high: float
    seed_deviation: float


@dataclass(frozen=True)
class TaskTypeTest:
    """Two variants on a task type.

    Attributes
    ----------
    difference : first minus second.
    low, high : bootstrap interval of it, not corrected.
    p, p_corrected : raw, and after Holm's correction; NaN where there is no test.
    seed_differences : of the seeds that both have.
    """

    base: str
    task_type: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    seed_differences: Sequence[float]

    def is_significant(self, alpha: float) -> bool:
        """Whether the corrected p is below alpha and every seed has the sign of the whole."""
        signs = {math.copysign(1.0, one) for one in self.seed_differences if one != 0}
        return self.p_corrected < alpha and len(signs) == 1


class BaseScores:
    """The scores of all variants on one base.

    Parameters
    ----------
    runs : the finished ones of the base.
    results : run name to its results; a run without a task's result lacks the task type.
    """

    def __init__(
        self,
        base: str,
        config: StudyConfig,
        runs: Sequence[StudyRun],
        results: Mapping[str, Sequence[Result]],
    ) -> None:
        self.base, self._config = base, config
        self._table: dict[str, dict[str, dict[int, Result]]] = {}
        for run in runs:
            for result in results.get(run.name, ()):
                row = self._table.setdefault(result.task, {})
                row.setdefault(run.variant, {})[run.seed] = result
        self.variants = [v.name for v in config.variants if v.name in {c.variant for c in runs}]
        self.seeds = {
            name: [run.seed for run in runs if run.variant == name] for name in self.variants
        }
        self.tasks: dict[str, list[str]] = {}
        for task_type in TASK_TYPES:
            names = [task for task in self._table if self._task_type(task) == task_type]
            if names:
                self.tasks[task_type] = sorted(names)
        self._samples: dict[str, dict[str, Doubles]] = {}

    @property
    def task_types(self) -> list[str]:
        """Those that have a task, in the usual order."""
        return list(self.tasks)

    def task_score(self, variant: str, task: str) -> float:
        """Return the mean of a task's main score over seeds; NaN where it is missing."""
        found = self._table.get(task, {}).get(variant, {})
        return float(np.mean([one.main_score for one in found.values()])) if found else math.nan

    def metric(self, task: str) -> str:
        """Return the main metric of a task."""
        return next(iter(next(iter(self._table[task].values())).values())).main_metric

    def cost(self, variant: str, name: str) -> float:
        """Return the median of a cost over the tasks and seeds of a variant; NaN for none."""
        values = [
            one.costs[name]
            for row in self._table.values()
            for one in row.get(variant, {}).values()
            if name in one.costs
        ]
        return float(np.median(values)) if values else math.nan

    def task_type_score(self, variant: str, task_type: str) -> TaskTypeScore | None:
        """Return a score on a task type or on ``ALL_TASK_TYPES``; None where one is missing."""
        samples = self._task_type_samples(variant, task_type)
        if samples is None:
            return None
        scores = list(self._by_seed(variant, task_type).values())
        spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
        low, high = percentile_interval(samples, self._config.alpha)
        return TaskTypeScore(float(np.mean(scores)), low, high, spread)

    def compare(self, first: str, second: str, task_type: str) -> TaskTypeTest | None:
        """Return a paired test, not yet corrected; None where a variant lacks the task type."""
        one, other = (self._task_type_samples(name, task_type) for name in (first, second))
        if one is None or other is None:
            return None
        left, right = (self._by_seed(name, task_type) for name in (first, second))
        difference = float(np.mean(list(left.values())) - np.mean(list(right.values())))
        low, high = percentile_interval(one - other, self._config.alpha)
        if task_type in ("sts", ALL_TASK_TYPES):
            p = shifted_bootstrap_p(difference, one - other)
        else:
            p = self._test_items(first, second, task_type)
        common = [left[seed] - right[seed] for seed in left if seed in right]
        return TaskTypeTest(
            self.base, task_type, first, second, difference, low, high, p, math.nan, common
        )

    def _test_items(self, first: str, second: str, task_type: str) -> float:
        """Return p of a randomisation test over items, each task weighing the same."""
        tasks = self.tasks[task_type]
        parts = []
        for task in tasks:
            left, right = (self._item_means(task, name) for name in (first, second))
            parts.append((left - right) / (len(left) * len(tasks)))
        return randomisation_test(np.concatenate(parts), resamples=self._config.resamples)

    def _by_seed(self, variant: str, task_type: str) -> dict[int, float]:
        """Return a seed's mean over the tasks of a task type, or over task types."""
        if task_type == ALL_TASK_TYPES:
            rows = [self._by_seed(variant, one) for one in self.task_types]
            return {seed: float(np.mean([row[seed] for row in rows])) for seed in rows[0]}
        found = [self._table[task][variant] for task in self.tasks[task_type]]
        return {
            seed: float(np.mean([row[seed].main_score for row in found]))
            for seed in self.seeds[variant]
        }

    def _task_type_samples(self, variant: str, task_type: str) -> Doubles | None:
        """Return resampled scores (R,); None where a score is missing or undefined."""
        if task_type == ALL_TASK_TYPES:
            found = [self._task_type_samples(variant, one) for one in self.task_types]
        else:
            found = [self._sample(task).get(variant) for task in self.tasks.get(task_type, [])]
        present = [one for one in found if one is not None]
        if not present or len(present) < len(found):
            return None
        return np.asarray(np.mean(present, axis=0), dtype=np.float64)

    def _sample(self, task: str) -> dict[str, Doubles]:
        """Return a task's resampled scores by variant; all see the same items."""
        if task not in self._samples:
            whole = [name for name in self.variants if self._is_whole(task, name)]
            count, seed = self._config.bootstrap_resamples, sorted(self._table).index(task)
            if not whole:
                self._samples[task] = {}
            elif self._task_type(task) == "sts":
                self._samples[task] = self._sample_sts(task, whole, count, seed)
            else:
                rows = np.stack([self._item_means(task, name) for name in whole])
                found = bootstrap_means(rows, resamples=count, seed=seed)
                self._samples[task] = dict(zip(whole, found, strict=True))
        return self._samples[task]

    def _sample_sts(
        self, task: str, variants: Sequence[str], count: int, seed: int
    ) -> dict[str, Doubles]:
        owners = [(name, one) for name in variants for one in self._table[task][name].values()]
        gold = np.asarray(owners[0][1].items["gold"], dtype=np.float64)
        rows = np.stack([np.asarray(one.items["cosine"], dtype=np.float64) for _, one in owners])
        found = bootstrap_spearman(rows, gold, resamples=count, seed=seed)
        return {
            name: found[[place for place, (owner, _) in enumerate(owners) if owner == name]].mean(
                axis=0
            )
            for name in variants
        }

    def _item_means(self, task: str, variant: str) -> Doubles:
        """Return the main score of each item, the mean over seeds; of classification each draw."""
        rows = [
            (one.draws or one.items)[one.main_metric] for one in self._table[task][variant].values()
        ]
        return np.asarray(np.mean(np.asarray(rows, dtype=np.float64), axis=0), dtype=np.float64)

    def _is_whole(self, task: str, variant: str) -> bool:
        """Whether every finished seed of a variant has a defined score for a task."""
        found = self._table[task].get(variant, {})
        return set(found) == set(self.seeds[variant]) and all(
            math.isfinite(one.main_score) for one in found.values()
        )

    def _task_type(self, task: str) -> str:
        return next(iter(next(iter(self._table[task].values())).values())).task_type


def correct_tests(tests: Sequence[TaskTypeTest]) -> list[TaskTypeTest]:
    """Return the tests with p-values that Holm's method corrected for all of them together."""
    corrected = adjust_holm([one.p for one in tests])
    return [replace(one, p_corrected=float(p)) for one, p in zip(tests, corrected, strict=True)]
