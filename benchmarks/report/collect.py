"""The contents of a report, as plain values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report.items import collect_items
from benchmarks.report.leaderboard import TaskTypeTable, build_leaderboard
from benchmarks.scoring.results import Result, group_notes
from benchmarks.significance.comparison import Comparison

DECIMALS = 4
_NO_CHANCE = "no difference, however large, could have been significant"
COSTS = (
    "tokens_per_second",
    "query_p50_seconds",
    "query_p95_seconds",
    "seconds",
    "parameters",
    "pooling_flops",
    "index_bytes",
    "peak_memory_bytes",
)
"""In the order in which the page shows them."""

_TESTS = {
    "randomisation": "a paired randomisation test (Fisher) of the mean difference per item, with "
    "{resamples:,} resamples; p counts the observed table as one of them, so it is never zero",
    "wilcoxon": "a Wilcoxon signed-rank test of the differences per item",
    "t": "a paired t test of the differences per item",
}
_CORRECTIONS = {
    "holm": "Holm's method, which bounds the chance of one false difference in the {family}",
    "benjamini-hochberg": "the method of Benjamini and Hochberg, which bounds the expected share "
    "of false differences among those called significant",
}


@dataclass(frozen=True)
class Report:
    """What a report is made from.

    Attributes
    ----------
    results, comparison : of ``read_results`` and ``compare``.
    tables : the leaderboards, one per task type.
    folder : the results folder; the hits of the retrieval tasks are read from it.
    version : of millpond.
    created : UTC, ISO 8601.
    """

    results: Sequence[Result]
    comparison: Comparison
    tables: Sequence[TaskTypeTable]
    folder: Path
    version: str
    created: str


def collect(
    folder: Path, results: Sequence[Result], comparison: Comparison, version: str, created: str
) -> Report:
    """Return what all formats of the report need; hits are not read yet."""
    tables = build_leaderboard(results, comparison)
    return Report(results, comparison, tables, folder, version, created)


def rounded(value: float, decimals: int = DECIMALS) -> float | None:
    """Return a rounded number, None for NaN and infinity."""
    return round(value, decimals) if math.isfinite(value) else None


def page_data(report: Report) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the data of the whole page, and that of each task.

    Models are numbered in the order of ``comparison.models``, tasks as in the leaderboard.

    Raises
    ------
    RecordError : a file of hits is damaged.
    """
    models = list(report.comparison.models)
    blocks = []
    tasks = []
    for table in report.tables:
        for column in table.columns:
            of_task = {one.model: one for one in report.results if one.task == column.task}
            tasks.append(_task(table.task_type, column.task, report, of_task))
            blocks.append(
                collect_items(report.folder, models, of_task, table.task_type, column.metric)
            )
    whole = {
        "created": report.created,
        "version": report.version,
        "folder": report.folder.resolve().name,
        "alpha": report.comparison.config.alpha,
        "baseline": report.comparison.config.baseline or "",
        "tested": bool(report.comparison.differences),
        "models": _models(models, report.results),
        "ranking": _ranking(report.comparison, models),
        "tasks": tasks,
        "task_types": [_task_type(table, report, models) for table in report.tables],
        "tests": describe_tests(report.comparison),
        "cautions": [sentence(note) for note in report.comparison.notes],
        "notes": _notes(report.results),
        "versions": _versions(report.results),
    }
    return whole, blocks


def _task(
    task_type: str, task: str, report: Report, of_task: Mapping[str, Result]
) -> dict[str, Any]:
    """Return what the page says about a task; its scores are in the table of its type."""
    results = list(of_task.values())
    data = [f"{name} {value}" for name, value in _shared([one.data for one in results]).items()]
    settings = _shared([one.settings for one in results])
    column = next(c for table in report.tables for c in table.columns if c.task == task)
    return {
        "name": task,
        "task_type": task_type,
        "metric": column.metric,
        "items": column.items,
        "with_items": sum(bool(one.item_ids) for one in results),
        "data": data,
        "settings": [f"{name} {value}" for name, value in settings.items()],
        "sha256": str(results[0].data.get("sha256", ""))[:12],
    }


def _shared(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the values of several mappings as text; where they differ, all of them."""
    names = dict.fromkeys(name for row in rows for name in row if name != "sha256")
    return {
        name: describe_values([row[name] for row in rows if name in row])
        for name in names
        if not any(isinstance(row.get(name), (dict, list, tuple)) for row in rows)
    }


def _models(names: Sequence[str], results: Sequence[Result]) -> list[dict[str, Any]]:
    own: dict[str, list[Result]] = {}
    for result in results:
        own.setdefault(result.model, []).append(result)
    return [
        {
            "name": name,
            "fingerprints": list(dict.fromkeys(one.fingerprint.digest[:12] for one in own[name])),
            "imported": any(one.source for one in own[name]),
        }
        for name in names
    ]


def _ranking(comparison: Comparison, models: Sequence[str]) -> dict[str, Any] | None:
    """Return the ranking over all tasks; rows are model, ends of its rank, group and mean."""
    ranking = comparison.ranking
    if ranking is None or not ranking.is_telling:
        return None
    number = {name: index for index, name in enumerate(models)}
    return {
        "tasks": len(ranking.tasks),
        "level": f"{100 * (1 - comparison.config.alpha):g}%",
        "rows": [
            [number[row.model], row.low, row.high, row.group, rounded(row.mean)]
            for row in ranking.rows
        ],
        "text": describe_ranking(comparison),
        "notes": [sentence(note) for note in ranking.notes],
    }


def describe_ranking(comparison: Comparison) -> list[str]:
    """Return sentences on what the groups and the intervals of the ranks are."""
    ranking, config = comparison.ranking, comparison.config
    if ranking is None:
        return []
    stage = "tasks, and of the items within them" if ranking.hierarchical else "tasks"
    groups = (
        "The order is that of the mean, but a place is no finding: models of one group can't be "
        "told apart from the group's first by Wilcoxon's signed-rank test over tasks, corrected "
        f"for all pairs of models at {config.alpha:g}. A new group begins at the first that can."
    )
    return [
        *([groups] if ranking.grouped else []),
        f"The interval of a rank is where the model comes in {100 * (1 - config.alpha):g}% of "
        f"bootstraps of the {stage}. Over {len(ranking.tasks)} tasks no p is below "
        f"{ranking.smallest_p:.2g}.",
    ]


def _task_type(table: TaskTypeTable, report: Report, models: Sequence[str]) -> dict[str, Any]:
    number = {name: index for index, name in enumerate(models)}
    own: dict[str, list[Result]] = {}
    for result in report.results:
        if result.task_type == table.task_type:
            own.setdefault(result.model, []).append(result)
    return {
        "name": table.task_type,
        "models": [number[name] for name in table.models],
        "absent": [number[name] for name in table.absent],
        "notes": list(table.notes),
        "tasks": [
            {
                "name": column.task,
                "cells": {number[name]: _cell(cell) for name, cell in column.cells.items()},
                "pairs": _pairs(report.comparison.differences, number, task=column.task),
            }
            for column in table.columns
        ],
        "means": {number[name]: _cell(cell) for name, cell in table.means.items()},
        "pairs": _pairs(report.comparison.task_types, number, task_type=table.task_type),
        "costs": {number[name]: _costs(own.get(name, ())) for name in table.models},
    }


def _cell(cell: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(cell).items() if value} | {
        "score": rounded(cell.score)
    }


def _pairs(
    differences: Sequence[Any], number: Mapping[str, int], **only: str
) -> list[dict[str, Any]]:
    """Return the differences on one task or task type, without values that are not numbers."""
    rows = []
    for one in differences:
        if any(getattr(one, name) != value for name, value in only.items()):
            continue
        row: dict[str, Any] = {"first": number[one.first], "second": number[one.second]}
        row["difference"] = rounded(one.difference)
        for name, decimals in (("low", 4), ("high", 4), ("effect_size", 2), ("smallest_p", 4)):
            if getattr(one, name, 0) != 0:
                row[name] = rounded(getattr(one, name), decimals)
        row["p"] = _significant_digits(one.p)
        row["p_corrected"] = _significant_digits(one.p_corrected)
        row["significant"] = one.significant
        row["items"] = one.items if hasattr(one, "items") else len(one.tasks)
        row["note"] = one.note
        if not getattr(one, "had_a_chance", True):
            row["note"] = sentence(f"{one.note}; {_NO_CHANCE}" if one.note else _NO_CHANCE)
        rows.append({name: value for name, value in row.items() if value not in (None, "")})
    return rows


def _significant_digits(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None


def _costs(results: Sequence[Result]) -> dict[str, float]:
    """Return the median of each cost of a model over the tasks of a task type."""
    own = [result.costs for result in results]
    rows = {
        name: [costs[name] for costs in own if math.isfinite(costs.get(name, math.nan))]
        for name in COSTS
    }
    return {name: float(f"{median(row):.4g}") for name, row in rows.items() if row}


def _notes(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return each note of the results once, with the models that it is about."""
    return [
        {"text": sentence(note), "task": task, "models": names}
        for (task, note), names in group_notes(results).items()
    ]


def _versions(results: Sequence[Result]) -> dict[str, str]:
    names = sorted({name for result in results for name in result.versions})
    return {
        name: describe_values([one.versions[name] for one in results if name in one.versions])
        for name in names
    }


def describe_tests(comparison: Comparison) -> list[str]:
    """Return sentences on how the p-values and intervals of a comparison were made."""
    if not comparison.differences:
        return ["No two models were compared, so nothing was tested."]
    config = comparison.config
    pairs = (
        f"Each model was compared with {config.baseline}"
        if config.baseline
        else "All pairs of models were compared"
    )
    test = _TESTS[config.test].format(resamples=config.resamples)
    resamples = f"with {config.bootstrap_resamples:,} resamples"
    of_a_type = config.family == "task-type"
    together = "a task type" if of_a_type else "all tasks and task types"
    family = "task type" if of_a_type else "whole table"
    return [
        f"{pairs} on every task that both have, by {test}.",
        "Spearman's correlation has no value for one pair of sentences, so STS tasks have a "
        f"paired bootstrap of the difference, {resamples}.",
        "Classification has a test over the test texts and the draws of training examples at "
        "once, both as random factors (Clark 1973), and an interval of the same kind.",
        "The mean over the tasks of a type has a Wilcoxon signed-rank test of the task scores.",
        f"The p-values of {together} are corrected together by "
        f"{_CORRECTIONS[config.correction].format(family=family)}.",
        f"A difference is significant where the corrected p is below {config.alpha:g}. "
        f"Intervals are bootstrap intervals of the difference at {100 * (1 - config.alpha):g}%, "
        f"not corrected, {resamples}. The seed is {config.seed}.",
    ]


def describe_values(values: Iterable[Any]) -> str:
    """Return one value, or every different one with " / " between."""
    return " / ".join(dict.fromkeys(map(_to_text, values)))


def sentence(text: str) -> str:
    """Return a note with a full stop at its end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _to_text(value: Any) -> str:
    """Return a value as text, whole numbers with separators between thousands."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
