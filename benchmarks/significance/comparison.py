"""What to compare, and the result: which differences between models are real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.significance.bootstrap import BOOTSTRAP_RESAMPLES
from benchmarks.significance.correction import CORRECTIONS
from benchmarks.significance.paired import RESAMPLES, TESTS
from retrieval.errors import UnknownNameError, UsageError

_FEWEST_RESAMPLES = 100

FAMILIES = ("task-type", "all")
"""What one correction covers: the tests of a task type, or all tests."""


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and by which test.

    Attributes
    ----------
    metric : None for each task's main metric; else tasks without it are left out.
    alpha : level of significance after correction; intervals have confidence ``1 - alpha``.
    baseline : None for all pairs of models; else the model that all others are compared with.
    adjacent : whether the tests over all tasks are of each model and the next in the ranking.
    test : "randomisation", "wilcoxon" or "t"; an STS task always has a paired bootstrap, and
        classification a test over test texts and draws (``crossed_test``).
    correction : "holm" or "benjamini-hochberg".
    family : one of ``FAMILIES``, what one correction covers.
    resamples : random assignments of signs of the randomisation test.
    bootstrap_resamples : of the intervals and of the STS test.
    seed : of both.
    """

    metric: str | None = None
    alpha: float = 0.05
    baseline: str | None = None
    adjacent: bool = False
    test: str = "randomisation"
    correction: str = "holm"
    family: str = "task-type"
    resamples: int = RESAMPLES
    bootstrap_resamples: int = BOOTSTRAP_RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UsageError for a value out of range."""
        if self.test not in TESTS:
            raise UnknownNameError("test", self.test, TESTS)
        if self.correction not in CORRECTIONS:
            raise UnknownNameError("correction", self.correction, CORRECTIONS)
        if self.adjacent and self.baseline is not None:
            raise UsageError(
                f"adjacent compares neighbours, baseline all models with {self.baseline!r}; "
                f"choose one."
            )
        if self.family not in FAMILIES:
            raise UnknownNameError("family", self.family, FAMILIES)
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha is {self.alpha:g}; it must be between 0 and 1, such as 0.05.")
        for name in ("resamples", "bootstrap_resamples"):
            if getattr(self, name) < _FEWEST_RESAMPLES:
                raise UsageError(
                    f"{name} is {getattr(self, name)}; it must be {_FEWEST_RESAMPLES} or more."
                )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more.")


@dataclass(frozen=True)
class Difference:
    """Two models on one task.

    Attributes
    ----------
    task, task_type, metric : what was compared.
    first, second : model names.
    first_score, second_score : of the whole task.
    difference : ``first_score - second_score``.
    low, high : bootstrap interval of the difference, at confidence ``1 - alpha``.
    effect_size : mean difference per item over its standard deviation (Cohen's d for pairs);
        NaN where it has no meaning, such as for Spearman's correlation.
    items : how many queries, pairs, texts or splits the test saw.
    p, p_corrected : raw, and after correction over the family; NaN where no test is possible.
    significant : ``p_corrected < alpha``.
    note : why there is no test, or what limits it; "" for nothing.
    smallest_p : no p of so many items or resamples can be lower.
    had_a_chance : whether ``smallest_p`` would be significant after the correction. Where it is
        False, no difference, however large, could have been.
    """

    task: str
    task_type: str
    metric: str
    first: str
    second: str
    first_score: float
    second_score: float
    difference: float
    low: float = math.nan
    high: float = math.nan
    effect_size: float = math.nan
    items: int = 0
    p: float = math.nan
    p_corrected: float = math.nan
    significant: bool = False
    note: str = ""
    smallest_p: float = 0.0
    had_a_chance: bool = True


@dataclass(frozen=True)
class TaskTypeDifference:
    """Two models over all tasks of a task type: a Wilcoxon signed-rank test of the task scores.

    Attributes
    ----------
    tasks : the tasks that both models have, by name.
    smallest_p : no p-value of so many tasks can be lower (5 tasks: 0.0625).
    note : says so where ``smallest_p`` is not below alpha.
    """

    task_type: str
    first: str
    second: str
    tasks: Sequence[str]
    first_mean: float
    second_mean: float
    difference: float
    p: float
    p_corrected: float = math.nan
    smallest_p: float = 0.0
    significant: bool = False
    note: str = ""


@dataclass(frozen=True)
class Ranked:
    """A model in the ranking over tasks.

    Attributes
    ----------
    rank : from 1, by the mean.
    low, high : bootstrap interval of the rank, at confidence ``1 - alpha``.
    group : from 1; models of a group can't be told apart from its first. 0 where so few tasks
        could tell no two models apart.
    mean : over all tasks, each weighing the same.
    imported : whether a score of it is not of ``bench``.
    """

    model: str
    rank: int
    low: int
    high: int
    group: int
    mean: float
    imported: bool


@dataclass(frozen=True)
class TaskTest:
    """Two models over all tasks, the better one first.

    Attributes
    ----------
    low, high : bootstrap interval of the mean difference, at confidence ``1 - alpha``.
    deviation : standard deviation of the task differences (n - 1).
    p, p_corrected : of Wilcoxon's signed-rank test, raw and over the tests that are listed.
    p_permutation, p_permutation_corrected : of the paired permutation test of the mean.
    significant : ``p_corrected < alpha``.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    deviation: float
    p: float
    p_corrected: float
    p_permutation: float
    p_permutation_corrected: float
    significant: bool


@dataclass(frozen=True)
class Ranking:
    """All models that have every task, ranked by the mean over tasks.

    Attributes
    ----------
    tasks : by name.
    rows : best first.
    tests : of ``listed``: "pairs", "neighbours" or "baseline".
    smallest_p : no p of Wilcoxon's test over so many tasks can be lower.
    grouped : whether there are groups.
    hierarchical : whether the intervals resample items within tasks, or tasks alone.
    notes : what is not ranked, and what so few tasks can't show.
    """

    tasks: Sequence[str]
    rows: Sequence[Ranked]
    tests: Sequence[TaskTest]
    listed: str
    smallest_p: float
    grouped: bool
    hierarchical: bool
    notes: Sequence[str]

    @property
    def is_telling(self) -> bool:
        """Whether it says more than the tests on each task: it has groups, or imported models."""
        return self.grouped or any(row.imported for row in self.rows)


@dataclass(frozen=True)
class Comparison:
    """All pairs of models on every task and over every task type.

    Attributes
    ----------
    config : what was compared, and by which test.
    models, tasks : in the order of first appearance; a model may lack a task.
    differences, task_types : the corrected table; a correction runs over both of a family.
    notes : what a reader has to know about the whole, such as a task that a model lacks.
    ranking : over all tasks, None where there are not two tasks and two models that have both.
    """

    config: CompareConfig
    models: Sequence[str]
    tasks: Sequence[str]
    differences: Sequence[Difference]
    task_types: Sequence[TaskTypeDifference]
    notes: Sequence[str] = ()
    ranking: Ranking | None = None
