"""The report as CSV: one line for each model, task and metric."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from benchmarks.report.collect import COSTS
from benchmarks.results import Result

__all__ = ["render_csv"]

_FIELDS = ("model", "task", "family", "metric", "score", "is_main", "items")


def render_csv(results: Sequence[Result]) -> str:
    """Return lines of model, task, family, metric, score (empty: undefined), and the costs.

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
            row = [result.model, result.task, result.family, metric, _number(score)]
            main = int(metric == result.main_metric)
            writer.writerow([*row, main, len(result.item_ids), *shared, result.created])
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def _number(value: float) -> str:
    """Return a number as Python reads it back, "" where it is undefined."""
    return repr(value) if math.isfinite(value) else ""
