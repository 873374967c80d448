"""Semantic textual similarity: does the cosine of two sentences rank pairs as people do?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scoring.metrics import correlations, cosines, is_constant
from benchmarks.tasks.tables import read_table
from benchmarks.tasks.task import Embed, Scores, Task, TextTaskType
from retrieval.errors import UsageError

__all__ = ["COLUMNS", "STS", "StsData", "load_sts", "score_sts"]

COLUMNS = ("score", "sentence1", "sentence2")


@dataclass(frozen=True)
class StsData:
    """Pairs of sentences and how alike people found them."""

    first: Sequence[str]
    second: Sequence[str]
    gold: Sequence[float]
    notes: Sequence[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of pairs."""
        return {"pairs": len(self.gold)}


def load_sts(task: Task, skip_bad: bool) -> StsData:
    """Return the pairs of a .tsv file with the columns score, sentence1 and sentence2.

    Raises
    ------
    RecordError : a bad row, unless ``skip_bad``.
    UsageError : fewer than two pairs.
    """
    table = read_table(task.path, COLUMNS, _check, skip_bad=skip_bad)
    if len(table.rows) < 2:
        raise UsageError(f"{task.path}: it holds 1 pair; 2 or more are accepted.")
    scores, first, second = zip(*table.rows, strict=True)
    return StsData(first, second, [float(score) for score in scores], table.notes(task.path))


def score_sts(data: StsData, embed: Embed) -> Scores:
    """Return Spearman's ("spearman") and Pearson's ("pearson") correlation of cosine with gold.

    The items are "cosine" and "gold" of each pair. Where all cosines or all gold scores are
    equal a correlation is undefined: both are NaN, and a note says why.
    """
    vectors = embed([*data.first, *data.second])
    half = len(data.gold)
    cosine = cosines(vectors[:half], vectors[half:]).tolist()
    spearman, pearson = correlations(cosine, data.gold)
    sides = (("gold scores", data.gold), ("cosines of this model", cosine))
    notes = [
        f"All {what} are equal, so the correlation is undefined."
        for what, values in sides
        if is_constant(values)
    ]
    return Scores(
        "spearman",
        {"spearman": spearman, "pearson": pearson},
        [str(number) for number in range(half)],
        {"cosine": cosine, "gold": list(data.gold)},
        notes,
    )


def _check(row: Sequence[str]) -> str:
    try:
        if math.isfinite(float(row[0])):
            return ""
    except ValueError:
        pass
    return f"the score is {row[0][:40]!r}; accepted is a number"


def _files(task: Task) -> Mapping[str, Path]:
    return {"pairs": task.path}


STS = TextTaskType(_files, load_sts, score_sts, {"protocol": 1})
