"""The leaderboard: a table for each task family, with what differs significantly in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from benchmarks.comparison import Comparison, Difference, FamilyDifference
from benchmarks.report.letters import share_letters
from benchmarks.results import FAMILIES, Result

__all__ = ["BETTER", "WORSE", "Cell", "FamilyTable", "TaskColumn", "build_leaderboard"]

BETTER, WORSE = "+", "−"  # noqa: RUF001 - the minus sign that tables are set with
"""Marks beside a score, where a baseline takes the place of all pairs."""


@dataclass(frozen=True)
class Cell:
    """One score of a table.

    Attributes
    ----------
    score : NaN where it is undefined.
    marks : the significance letters; with a baseline ``BETTER`` or ``WORSE``; "" for no test.
    leading : not significantly below the best score of its column.
    reason : why the score is undefined; "" where it is not.
    """

    score: float
    marks: str = ""
    leading: bool = False
    reason: str = ""


@dataclass(frozen=True)
class TaskColumn:
    """One task: ``cells`` lacks the models that were not run on it."""

    task: str
    metric: str
    items: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class FamilyTable:
    """The models and tasks of a family.

    Attributes
    ----------
    models : those with a task of the family, by mean, the best first; then those without one.
    columns : its tasks, by name.
    means : of the models that have a defined score on every task; a mean over other tasks
        would be another quantity.
    absent : the models that have no task of this family.
    notes : what limits the tests over the family.
    """

    family: str
    models: Sequence[str]
    columns: Sequence[TaskColumn]
    means: Mapping[str, Cell]
    absent: Sequence[str]
    notes: Sequence[str] = field(default=())


def build_leaderboard(results: Sequence[Result], comparison: Comparison) -> list[FamilyTable]:
    """Return a table for each family that has a task, in the order of ``FAMILIES``."""
    metrics = choose_metrics(results, comparison)
    tables = []
    for family in FAMILIES:
        of_family = [result for result in results if result.family == family]
        if of_family:
            tables.append(_build_table(family, of_family, comparison, metrics))
    return tables


def choose_metrics(results: Sequence[Result], comparison: Comparison) -> dict[str, str]:
    """Return the metric of each task: the compared one, else as its family, else its own."""
    compared = {one.task: one.metric for one in comparison.differences}
    of_family = {one.family: one.metric for one in comparison.differences}
    chosen = dict(compared)
    for result in results:
        usual = of_family.get(result.family, result.main_metric)
        fallback = usual if usual in result.metrics else result.main_metric
        chosen.setdefault(result.task, fallback)
    return chosen


def _build_table(
    family: str, results: Sequence[Result], comparison: Comparison, metrics: Mapping[str, str]
) -> FamilyTable:
    tasks = sorted({result.task for result in results})
    columns = [
        _build_column(
            [result for result in results if result.task == task], metrics[task], comparison
        )
        for task in tasks
    ]
    names = list(dict.fromkeys(result.model for result in results))
    scores = {name: _scores(columns, name) for name in names}
    means = {name: fmean(row) for name, row in scores.items() if len(row) == len(columns)}
    ranked = sorted(
        names,
        key=lambda name: (name not in means, -fmean(scores[name]) if scores[name] else math.inf),
    )
    tested = [one for one in comparison.families if one.family == family]
    able = [one for one in tested if one.smallest_p < comparison.alpha]
    return FamilyTable(
        family=family,
        models=ranked,
        columns=columns,
        means=_mark(means, able, comparison.baseline),
        absent=[name for name in comparison.models if name not in scores],
        notes=_limits(tested),
    )


def _limits(tested: Sequence[FamilyDifference]) -> tuple[str, ...]:
    """Return a sentence on what the tests over a family could not show."""
    limits = list(dict.fromkeys(one.note.rstrip(".") for one in tested if one.note))
    return (f"Tests of the means: {'; '.join(limits)}.",) if limits else ()


def _build_column(results: Sequence[Result], metric: str, comparison: Comparison) -> TaskColumn:
    task = results[0].task
    scores = {one.model: one.metrics.get(metric, math.nan) for one in results}
    tested = [one for one in comparison.differences if one.task == task]
    cells = _mark(scores, tested, comparison.baseline)
    reasons = {one.model: _reason(one, metric) for one in results if math.isnan(scores[one.model])}
    cells |= {name: Cell(math.nan, reason=reason) for name, reason in reasons.items()}
    return TaskColumn(task, metric, max(len(one.item_ids) for one in results), cells)


def _scores(columns: Iterable[TaskColumn], model: str) -> list[float]:
    cells = [column.cells[model] for column in columns if model in column.cells]
    return [cell.score for cell in cells if not math.isnan(cell.score)]


def _reason(result: Result, metric: str) -> str:
    if metric not in result.metrics:
        return f"{metric} was not computed"
    about = [note for note in result.notes if "undefined" in note.lower()]
    return about[0] if about else f"{metric} is undefined"


def _mark(
    scores: Mapping[str, float],
    tested: Sequence[Difference] | Sequence[FamilyDifference],
    baseline: str,
) -> dict[str, Cell]:
    """Return a cell for each score, marked with what the tests of one column found."""
    real = [one for one in tested if not math.isnan(one.p_corrected)]
    with_a_test = {name for one in real for name in (one.first, one.second)}
    order = [name for name in sorted(scores, key=lambda name: -scores[name]) if name in with_a_test]
    different = {(one.first, one.second) for one in real if one.significant}
    either = different | {(second, first) for first, second in different}
    best = max((score for score in scores.values() if not math.isnan(score)), default=math.nan)
    leaders = [name for name in scores if scores[name] == best]
    if baseline:
        marks = {
            name: BETTER if scores[name] > scores.get(baseline, math.nan) else WORSE
            for name in order
            if (name, baseline) in either
        }
        leading = set(leaders)
    else:
        marks = {name: "".join(row) for name, row in share_letters(order, different).items()}
        near = {
            name for name in order for one in leaders if one in order and (name, one) not in either
        }
        leading = near | set(leaders)
    return {name: Cell(scores[name], marks.get(name, ""), name in leading) for name in scores}
