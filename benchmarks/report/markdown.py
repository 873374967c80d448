"""The report as Markdown: the leaderboards, and every difference that is significant."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.report.collect import (
    COSTS,
    Report,
    describe_ranking,
    describe_tests,
    sentence,
)
from benchmarks.report.leaderboard import Cell, TaskTypeTable
from benchmarks.scoring.results import Result, group_notes
from benchmarks.significance.comparison import Comparison, Difference, TaskTypeDifference

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


def render_markdown(report: Report) -> str:
    """Return leaderboards by task type, significant differences, notes and how it was tested."""
    lines = ["# Embedding models compared", "", *_ranking(report.comparison)]
    for table in report.tables:
        lines += [*_leaderboard(table, report.comparison), ""]
    notes = list(_notes(report))
    if notes:
        lines += ["## Notes", "", *notes, ""]
    lines += [*_differences(report.comparison), ""]
    lines += ["## How it was tested", ""]
    lines += [*(f"- {plain(text)}" for text in describe_tests(report.comparison)), ""]
    lines.append(f"millpond {report.version}, {report.created[:10]}")
    text = "\n".join(lines) + "\n"
    return text.encode("utf-8", "backslashreplace").decode()


def code(name: str) -> str:
    """Return a name as Markdown code that is safe inside a table."""
    line = " ".join(name.split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def plain(text: str) -> str:
    """Return the text on one line, escaped for Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def format_score(value: float | None) -> str:
    """Return a score with three decimals; "undefined" for None and NaN."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.3f}".replace("-", MINUS)


def table_lines(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1
) -> Iterator[str]:
    """Yield the lines of a table whose first ``names`` columns are text, the others numbers."""
    marks = ["---"] * names + ["---:"] * (len(heads) - names)
    for cells in (heads, marks, *rows):
        yield "| " + " | ".join(cells) + " |"


def _ranking(comparison: Comparison) -> Iterator[str]:
    ranking = comparison.ranking
    if ranking is None or not ranking.is_telling:
        return
    yield f"## Over all {len(ranking.tasks)} tasks"
    yield ""
    level = f"{100 * (1 - comparison.config.alpha):g}% of rank"
    rows = [
        [
            code(row.model) + (" (imported)" if row.imported else ""),
            str(row.group or NOTHING),
            str(row.rank),
            f"{row.low} to {row.high}",
            format_score(row.mean),
        ]
        for row in ranking.rows
    ]
    yield from table_lines(["model", "group", "rank", level, "mean"], rows)
    yield ""
    yield from map(plain, (*describe_ranking(comparison), *map(sentence, ranking.notes)))
    yield ""


def _leaderboard(table: TaskTypeTable, comparison: Comparison) -> Iterator[str]:
    title = "STS" if table.task_type == "sts" else table.task_type.capitalize().replace("_", " ")
    yield f"## {title}"
    yield ""
    heads = [f"{plain(column.task)} ({plain(column.metric)})" for column in table.columns]
    rows = []
    for model in table.models:
        cells = [table.means.get(model), *(column.cells.get(model) for column in table.columns)]
        rows.append([code(model), *map(_cell, cells)])
    yield from table_lines(["model", "mean", *heads], rows)
    yield ""
    if not comparison.differences:
        yield "Bold: the best score."
    elif comparison.config.baseline:
        yield (
            f"+ and {MINUS}: significantly better and worse than "
            f"{code(comparison.config.baseline)}. Bold: the best score."
        )
    else:
        yield (
            "Models that share a letter do not differ significantly in that column. "
            "Bold: not significantly below the best."
        )
    if table.absent:
        yield f"Not run: {', '.join(map(code, table.absent))}."
    yield from (plain(note) for note in table.notes)


def _cell(cell: Cell | None) -> str:
    """Return a score and its letters, "undefined", or a dash if there is no score."""
    if cell is None:
        return NOTHING
    score = format_score(cell.score)
    shown = f"**{score}**" if cell.leading and not math.isnan(cell.score) else score
    return f"{shown} {cell.marks}".rstrip()


def _differences(comparison: Comparison) -> Iterator[str]:
    found: list[Difference | TaskTypeDifference] = [
        *(one for one in comparison.task_types if one.significant),
        *(one for one in comparison.differences if one.significant),
    ]
    total = len(comparison.task_types) + len(comparison.differences)
    yield "## Significant differences"
    yield ""
    if not found:
        yield f"None of {total:,} at {comparison.config.alpha:g} after correction."
        return
    yield f"{len(found):,} of {total:,} at {comparison.config.alpha:g} after correction."
    yield ""
    heads = ["task", "better", "worse", "difference", "interval", "p", "corrected p"]
    yield from table_lines(heads, map(_describe, found), names=3)


def _describe(one: Difference | TaskTypeDifference) -> list[str]:
    """Return the row of a difference, the better model first."""
    flip = one.difference < 0
    better, worse = (one.second, one.first) if flip else (one.first, one.second)
    interval = ""
    if isinstance(one, Difference):
        ends = sorted(-end if flip else end for end in (one.low, one.high))
        interval = " to ".join(map(format_score, ends))
        where = plain(one.task)
    else:
        where = f"all {plain(one.task_type)}"
    gap = f"{abs(one.difference):.3f}"
    return [where, code(better), code(worse), gap, interval, _p(one.p), _p(one.p_corrected)]


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _notes(report: Report) -> Iterator[str]:
    yield from (f"- {plain(sentence(note))}" for note in report.comparison.notes)
    for (task, note), models in group_notes(report.results).items():
        every = {one.model for one in report.results if one.task == task}
        of_all = len(models) > 1 and every == set(models)
        names = "all models" if of_all else ", ".join(map(code, models))
        yield f"- {plain(task)}, {names}: {plain(sentence(note))}"


_FIELDS = ("model", "task", "task_type", "metric", "score", "is_main", "items")


def render_csv(results: Sequence[Result]) -> str:
    """Return lines of model, task, task_type, metric, score (empty: undefined), and the costs.

    ``is_main`` is 1 for the metric that the task is reported by. The costs belong to the model
    and the task, so they repeat from metric to metric; only those that some result has are there.
    """
    known = {name for result in results for name in result.costs}
    costs = [name for name in COSTS if name in known] + sorted(known - set(COSTS))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIELDS, *costs, "created"])
    for result in results:
        shared = [_number(result.costs.get(name, math.nan)) for name in costs]
        for metric, score in result.metrics.items():
            row = [result.model, result.task, result.task_type, metric, _number(score)]
            main = int(metric == result.main_metric)
            writer.writerow([*row, main, len(result.item_ids), *shared, result.created])
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def _number(value: float) -> str:
    """Return a number as Python reads it back, "" where it is undefined."""
    return repr(value) if math.isfinite(value) else ""
