"""Scores as a table that fits a terminal: tasks as rows, models as numbered columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len

from cli._text import clean, truncate

__all__ = ["layout_scores"]

_COLUMN = 8
_LONGEST_TASK = 36


def layout_scores(
    models: Sequence[str],
    tasks: Sequence[tuple[str, str]],
    scores: Mapping[tuple[str, str], float],
    width: int,
) -> Iterator[str]:
    """Yield the lines of a table, in blocks where there are more models than fit side by side.

    Parameters
    ----------
    tasks : name and main metric of each row.
    scores : model and task to score; NaN is shown as "undef.", a missing one as "-".
    width : cells in a line; names are cut to fit, scores never.
    """
    metric = max(cell_len(name) for _, name in tasks)
    room = max(12, min(_LONGEST_TASK, width - metric - 2 - _COLUMN))
    left = min(room, max(cell_len(clean(name)) for name, _ in tasks))
    each = max(1, (width - left - metric - 2) // _COLUMN)
    for start in range(0, len(models), each):
        numbers = range(start, min(start + each, len(models)))
        heads = "".join(f"{number + 1:>{_COLUMN}}" for number in numbers)
        yield f"{'task':<{left}}  {'metric':<{metric}}{heads}"
        for task, name in tasks:
            shown = truncate(clean(task), left)
            shown += " " * (left - cell_len(shown))
            row = "".join(
                f"{_format(scores.get((models[number], task))):>{_COLUMN}}" for number in numbers
            )
            yield f"{shown}  {name:<{metric}}{row}"
        yield ""
    for number, model in enumerate(models, start=1):
        yield truncate(f"{number:>2}  {clean(model)}", max(width, 24))


def _format(score: float | None) -> str:
    if score is None:
        return "-"
    return "undef." if math.isnan(score) else f"{score:.3f}"
