"""The leaderboard: a table for each task type, with what differs significantly in it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from string import ascii_letters

from benchmarks.scoring.results import TASK_TYPES, Result
from benchmarks.significance.comparison import Comparison, Difference, TaskTypeDifference

Column = frozenset[int]


def share_letters(
    names: Sequence[str], different: Collection[tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Return the letters of each name: two names share one exactly if they do not differ.

    Insert-and-absorb with the sweep that follows it: H.-P. Piepho (2004), "An algorithm for a
    letter-based representation of all-pairwise comparisons", Journal of Computational and
    Graphical Statistics 13(2). Letter "a" goes to the group of the first name; after "Z" they
    go on with "a2", "b2", ...

    Parameters
    ----------
    names : the best first.
    different : the pairs that differ, in either order; pairs of other names do not count.
    """
    place = {name: index for index, name in enumerate(names)}
    columns: list[Column] = [frozenset(place.values())] if place else []
    known = [(place[one], place[two]) for one, two in different if one in place and two in place]
    # In the order of the ranking few columns arise on the way; in another order they may explode.
    for first, second in sorted((min(pair), max(pair)) for pair in known):
        columns = _absorb(_insert(columns, first, second))
    columns = sorted(_sweep(sorted(columns, key=sorted)), key=sorted)
    return {
        name: tuple(_letter(number) for number, column in enumerate(columns) if index in column)
        for name, index in place.items()
    }


def _insert(columns: Sequence[Column], first: int, second: int) -> list[Column]:
    """Split every column that holds both into one without each."""
    split: list[Column] = []
    for column in columns:
        if first in column and second in column:
            split += [column - {first}, column - {second}]
        else:
            split.append(column)
    return split


def _absorb(columns: Sequence[Column]) -> list[Column]:
    """Drop every column that another one holds."""
    unique = list(dict.fromkeys(columns))
    return [one for one in unique if not any(one < other for other in unique)]


def _sweep(columns: Sequence[Column]) -> list[Column]:
    """Take out each entry whose every connection another column makes too."""
    kept = list(columns)
    for number in reversed(range(len(kept))):
        for entry in sorted(kept[number], reverse=True):
            others = [one for place, one in enumerate(kept) if place != number and entry in one]
            partners = kept[number] - {entry}
            if others and all(any(one in other for other in others) for one in partners):
                kept[number] = partners
    return _absorb([column for column in kept if column])


def _letter(number: int) -> str:
    """Return a to z, A to Z, then a2 to Z2 and so on."""
    lap, place = divmod(number, len(ascii_letters))
    return ascii_letters[place] + (str(lap + 1) if lap else "")


BETTER, WORSE = "+", "\N{MINUS SIGN}"
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
class TaskTypeTable:
    """The models that were run on the tasks of one type, and their scores.

    Attributes
    ----------
    models : those with a task of this type, by mean, the best first; then those without one.
    columns : its tasks, by name.
    means : of the models that have a defined score on every task; a mean over other tasks
        would be another quantity.
    absent : the models that have no task of this type.
    notes : what limits the tests over the tasks of this type.
    """

    task_type: str
    models: Sequence[str]
    columns: Sequence[TaskColumn]
    means: Mapping[str, Cell]
    absent: Sequence[str]
    notes: Sequence[str] = field(default=())


def build_leaderboard(results: Sequence[Result], comparison: Comparison) -> list[TaskTypeTable]:
    """Return a table for each task type that has a task, in the order of ``TASK_TYPES``."""
    metrics = choose_metrics(results, comparison)
    tables = []
    for task_type in TASK_TYPES:
        of_task_type = [result for result in results if result.task_type == task_type]
        if of_task_type:
            tables.append(_build_table(task_type, of_task_type, comparison, metrics))
    return tables


def choose_metrics(results: Sequence[Result], comparison: Comparison) -> dict[str, str]:
    """Return the metric of each task: the compared one, else that of its type, else its own."""
    compared = {one.task: one.metric for one in comparison.differences}
    of_task_type = {one.task_type: one.metric for one in comparison.differences}
    chosen = dict(compared)
    for result in results:
        usual = of_task_type.get(result.task_type, result.main_metric)
        fallback = usual if usual in result.metrics else result.main_metric
        chosen.setdefault(result.task, fallback)
    return chosen


def _build_table(
    task_type: str, results: Sequence[Result], comparison: Comparison, metrics: Mapping[str, str]
) -> TaskTypeTable:
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
    tested = [one for one in comparison.task_types if one.task_type == task_type]
    able = [one for one in tested if one.smallest_p < comparison.config.alpha]
    limits = dict.fromkeys(one.note.rstrip(".") for one in tested if one.note)
    return TaskTypeTable(
        task_type=task_type,
        models=ranked,
        columns=columns,
        means=_mark(means, able, comparison.config.baseline),
        absent=[name for name in comparison.models if name not in scores],
        notes=(f"Tests of the means: {'; '.join(limits)}.",) if limits else (),
    )


def _build_column(results: Sequence[Result], metric: str, comparison: Comparison) -> TaskColumn:
    task = results[0].task
    scores = {one.model: one.metrics.get(metric, math.nan) for one in results}
    tested = [one for one in comparison.differences if one.task == task]
    cells = _mark(scores, tested, comparison.config.baseline)
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
    tested: Sequence[Difference] | Sequence[TaskTypeDifference],
    baseline: str | None,
) -> dict[str, Cell]:
    """Return a cell for each score, marked with what the tests of one column found.

    A test that could not have found any difference marks nothing: a shared letter would read as
    equality.
    """
    real = [
        one
        for one in tested
        if not math.isnan(one.p_corrected) and getattr(one, "had_a_chance", True)
    ]
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
