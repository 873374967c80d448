"""The shape of a comparison: which differences between models are real, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Comparison", "Difference", "TaskTypeDifference"]


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
    items : how many queries, pairs, draws or splits the test saw.
    p, p_corrected : raw, and after correction over the whole table; NaN where no test is possible.
    significant : ``p_corrected < alpha``.
    note : why there is no test, or what limits it; "" for nothing.
    """

    task: str
    task_type: str
    metric: str
    first: str
    second: str
    first_score: float
    second_score: float
    difference: float
    low: float
    high: float
    effect_size: float
    items: int
    p: float
    p_corrected: float
    significant: bool
    note: str = ""


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
    p_corrected: float
    smallest_p: float
    significant: bool
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All pairs of models on every task and over every task type.

    Attributes
    ----------
    alpha : the level of significance after correction.
    test : "randomisation", "wilcoxon" or "t"; an STS task always has a paired bootstrap.
    correction : "holm" or "benjamini-hochberg".
    baseline : only pairs with this model were tested; "" for all pairs.
    resamples : random assignments of signs of the randomisation test.
    seed : of the randomisation and the bootstraps.
    models, tasks : in the order of first appearance; a model may lack a task.
    differences, task_types : the corrected table; the correction runs over both together.
    notes : what a reader has to know about the whole, such as a task that a model lacks.
    bootstrap_resamples : of the intervals and of the STS test.
    """

    alpha: float
    test: str
    correction: str
    baseline: str
    resamples: int
    seed: int
    models: Sequence[str]
    tasks: Sequence[str]
    differences: Sequence[Difference]
    task_types: Sequence[TaskTypeDifference]
    notes: Sequence[str] = ()
    bootstrap_resamples: int = 10_000

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of plain values; NaN stays NaN."""
        return asdict(self)
