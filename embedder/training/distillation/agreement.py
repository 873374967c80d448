"""How far a student agrees with its teacher on texts that it was never trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.protocols import Vectors
from retrieval.scores import cosines, spearman, unit_rows

__all__ = ["describe_stall", "measure_agreement", "shared_neighbours"]

_NEIGHBOURS = 10
_STALE_EVALUATIONS = 5
_STALE_GAIN = 1e-3


def measure_agreement(
    student: Vectors, teacher: Vectors, projected: Vectors | None = None
) -> dict[str, float]:
    """Return how alike two sets of vectors of the same texts are.

    Parameters
    ----------
    student : (N, D) float32.
    teacher : (N, W) float32.
    projected : (N, W) float32, the student's at the teacher's width.

    Returns
    -------
    "teacher_cosine", the mean cosine of ``projected`` and ``teacher`` where there is one;
    "teacher_spearman", the rank correlation of the cosines of all pairs of texts; and
    "teacher_top10", the share of each text's nearest ten that are the teacher's too, of more than
    20 texts.
    """
    found = {}
    if projected is not None:
        found["teacher_cosine"] = float(cosines(projected, teacher).mean())
    ours, theirs = (unit_rows(rows) @ unit_rows(rows).T for rows in (student, teacher))
    above = np.triu_indices(len(student), k=1)
    correlation = spearman(ours[above], theirs[above])
    if np.isfinite(correlation):
        found["teacher_spearman"] = float(correlation)
    if len(student) > 2 * _NEIGHBOURS:  # of fewer, most are near by chance
        found["teacher_top10"] = shared_neighbours(ours, theirs)
    return found


def shared_neighbours(ours: Vectors, theirs: Vectors, count: int = _NEIGHBOURS) -> float:
    """Return the mean share of nearest texts that two matrices (N, N) of cosines have in common.

    The nearest are the ``count`` highest of a row without the text itself, or all there are.
    """
    count = min(count, len(ours) - 1)
    shares = []
    for row in range(len(ours)):
        nearest = []
        for matrix in (ours, theirs):
            order = np.argsort(-matrix[row], kind="stable")
            nearest.append(set(order[order != row][:count].tolist()))
        shares.append(len(nearest[0] & nearest[1]) / count)
    return float(np.mean(shares))


def describe_stall(history: Sequence[float], rate: float) -> str | None:
    """Return a line for the user once the agreement has not risen for five evaluations.

    Parameters
    ----------
    history : "teacher_spearman" of each evaluation, oldest first.
    rate : the learning rate now.
    """
    earlier, late = history[:-_STALE_EVALUATIONS], history[-_STALE_EVALUATIONS:]
    if not earlier or max(late) > max(earlier) + _STALE_GAIN:
        return None
    return (
        f"The student has agreed with the teacher no better for {_STALE_EVALUATIONS} evaluations "
        f"(Spearman {max(history):.3f} at best). At the rate {rate:g} it has learnt what it can: "
        f"end the run with --finish, or go on with a smaller rate."
    )
