"""Compares models on the tasks that they share, and corrects for the number of comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeAlias

import numpy as np

from benchmarks.scoring.results import TASK_TYPES, Result
from benchmarks.significance import (
    adjust_benjamini_hochberg,
    adjust_holm,
    smallest_wilcoxon_p,
    wilcoxon_test,
)
from benchmarks.significance.bootstrap import BOOTSTRAP_RESAMPLES
from benchmarks.significance.comparison import Comparison, Difference, TaskTypeDifference
from benchmarks.significance.notes import note_gaps, note_limits
from benchmarks.significance.paired import RESAMPLES
from benchmarks.significance.pairs import TESTS, TaskPairs
from retrieval import Progress
from retrieval.errors import UnknownNameError, UsageError

__all__ = ["CORRECTIONS", "CompareConfig", "compare"]

CORRECTIONS: Mapping[str, Callable[[Sequence[float]], Iterable[float]]] = {
    "holm": adjust_holm,
    "benjamini-hochberg": adjust_benjamini_hochberg,
}

_FEWEST_RESAMPLES = 100

_Table: TypeAlias = Mapping[str, Mapping[str, Result]]
"""Task to model to result."""


@dataclass(frozen=True)
class CompareConfig:
    """What is compared, and by which test.

    Attributes
    ----------
    metric : None for each task's main metric; else tasks without it are left out.
    alpha : level of significance after correction; intervals have confidence ``1 - alpha``.
    baseline : None for all pairs of models; else the model that all others are compared with.
    test : "randomisation", "wilcoxon" or "t"; an STS task always has a paired bootstrap.
    correction : "holm" or "benjamini-hochberg".
    resamples : random assignments of signs of the randomisation test.
    bootstrap_resamples : of the intervals and of the STS test.
    seed : of both.
    """

    metric: str | None = None
    alpha: float = 0.05
    baseline: str | None = None
    test: str = "randomisation"
    correction: str = "holm"
    resamples: int = RESAMPLES
    bootstrap_resamples: int = BOOTSTRAP_RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UsageError for a value that is never accepted."""
        if self.test not in TESTS:
            raise UnknownNameError("test", self.test, TESTS)
        if self.correction not in CORRECTIONS:
            raise UnknownNameError("correction", self.correction, CORRECTIONS)
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha is {self.alpha:g}; it must be between 0 and 1, such as 0.05.")
        for name in ("resamples", "bootstrap_resamples"):
            if getattr(self, name) < _FEWEST_RESAMPLES:
                raise UsageError(
                    f"{name} is {getattr(self, name)}; it must be {_FEWEST_RESAMPLES} or more."
                )
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more.")


def compare(
    results: Sequence[Result],
    config: CompareConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Return which differences between models are significant, task by task and by task type.

    Items are matched by their ids. The correction runs over all tests of the comparison.

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
    notes = note_gaps(results, metrics, config.metric)
    raw: list[Difference] = []
    for task, row in table.items():
        chosen = {model: metrics[task, model] for model in row if (task, model) in metrics}
        for difference in _compare_task(row, chosen, config, notes):
            raw.append(difference)
            if progress is not None:
                progress(1)
    if not raw:
        raise UsageError(
            "No task has comparable results of two models. Type: millpond bench --model M "
            "--task T --out RESULTS, with a task that another model has."
        )
    differences, task_types = _correct(raw, list(_compare_task_types(raw, config)), config)
    notes += note_limits(differences, task_types, config)
    return Comparison(
        alpha=config.alpha,
        test=config.test,
        correction=config.correction,
        baseline=config.baseline or "",
        resamples=config.resamples,
        seed=config.seed,
        models=models,
        tasks=list(table),
        differences=differences,
        task_types=task_types,
        notes=notes,
        bootstrap_resamples=config.bootstrap_resamples,
    )


def _arrange(results: Sequence[Result]) -> _Table:
    table: dict[str, dict[str, Result]] = {}
    for result in results:
        row = table.setdefault(result.task, {})
        if result.model in row:
            raise UsageError(
                f"{result.model!r} has two results for {result.task!r}; one is accepted. Delete "
                f"the one that is not wanted."
            )
        row[result.model] = result
    return table


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
    """Return the metric that is compared, by task and model; nothing where it is not there."""
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
    return [name for name in result.metrics if name in result.items]


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
    for first, second in _pairs(list(metrics), config.baseline):
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
        means = [
            float(np.mean([getattr(one, name) for one in rows]))
            for name in ("first_score", "second_score")
        ]
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
            p_corrected=math.nan,
            smallest_p=least,
            significant=False,
            note=f"{len(rows)} tasks: p cannot be below {least:.3g}"
            if least >= config.alpha
            else "",
        )


def _correct(
    differences: Sequence[Difference],
    task_types: Sequence[TaskTypeDifference],
    config: CompareConfig,
) -> tuple[list[Difference], list[TaskTypeDifference]]:
    """Return both with corrected p-values; the correction runs over both together.

    A test over a task type that cannot reach alpha, whatever the scores are, is no chance of a
    false alarm, so it does not make the others harder to pass (Tarone 1990, doi 10.2307/2531456).
    """
    able = (one.p if one.smallest_p < config.alpha else math.nan for one in task_types)
    p_values = [*(one.p for one in differences), *able]
    adjusted = CORRECTIONS[config.correction](p_values)
    values = [float(value) for value in adjusted]
    split = len(differences)
    return (
        [
            replace(one, p_corrected=p, significant=p < config.alpha)
            for one, p in zip(differences, values[:split], strict=True)
        ],
        [
            replace(one, p_corrected=p, significant=p < config.alpha)
            for one, p in zip(task_types, values[split:], strict=True)
        ],
    )
