"""What a student can learn from a teacher's vectors: one function and one entry a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.errors import UnknownNameError

CONTRAST = "info_nce"
"""The name under which ``[teacher.weights]`` mixes in InfoNCE, which needs no teacher."""


@dataclass(frozen=True)
class Lessons:
    """The texts of one step, over all processes, as the student and the teacher see them.

    Attributes
    ----------
    student : (N, D) float32, the vectors that the model gives.
    projected : (N, W) float32, the same brought to the teacher's width; ``student`` itself where
        the model ends in a projection.
    teacher : (N, W) float32 of length 1.
    triples : (M, 3) int64, the rows of a query, its positive and one of its negatives.
    temperature : of ``similarity``.
    """

    student: Tensor
    projected: Tensor
    teacher: Tensor
    triples: Tensor
    temperature: float


@dataclass(frozen=True)
class TeacherLoss:
    """One way to follow a teacher.

    Attributes
    ----------
    compute : lessons to (N,) float32, the loss of each text, or (M,), of each triple; names its
        paper.
    projects : whether it compares vectors, which takes the teacher's width.
    of_triples : whether it needs negatives.
    """

    compute: Callable[[Lessons], Tensor]
    projects: bool = False
    of_triples: bool = False


def cosine(lessons: Lessons) -> Tensor:
    """Return (N,): 1 - cos of each projected vector and the teacher's (arXiv 2602.15547).

    jina-embeddings-v5 projects to the teacher's width in training and drops the projection then.
    """
    left = F.normalize(lessons.projected.float(), dim=-1)
    return 1 - (left * lessons.teacher).sum(dim=-1)


def similarity(lessons: Lessons) -> Tensor:
    """Return (N,): the divergence of each text's likeness to the others from the teacher's.

    The likeness is the softmax of cosine / temperature over the other texts, and the divergence
    KL(teacher || student) (SEED, arXiv 2101.04731, equation 3, whose other texts come from a queue
    and which leaves out the teacher's entropy, a constant). Widths may differ. A text alone has 0.
    """
    count = lessons.student.shape[0]
    if count < 2:
        return lessons.student.sum(dim=-1) * 0
    student = F.normalize(lessons.student.float(), dim=-1)
    own = torch.eye(count, dtype=torch.bool, device=student.device)

    def log_likeness(rows: Tensor) -> Tensor:
        logits = (rows @ rows.T) / lessons.temperature
        return F.log_softmax(logits[~own].view(count, count - 1), dim=-1)

    target = log_likeness(lessons.teacher)
    return (target.exp() * (target - log_likeness(student))).sum(dim=-1)


def margin_mse(lessons: Lessons) -> Tensor:
    """Return (M,): how far the margin of each triple is from the teacher's, squared.

    A margin is cos(query, positive) - cos(query, negative) (arXiv 2010.02666, equation 7, whose
    teacher is a cross-encoder and whose scores are inner products).
    """
    margins = []
    for rows in (F.normalize(lessons.student.float(), dim=-1), lessons.teacher):
        query, positive, negative = (rows[lessons.triples[:, place]] for place in range(3))
        margins.append((query * positive).sum(dim=-1) - (query * negative).sum(dim=-1))
    return (margins[0] - margins[1]) ** 2


LOSSES: dict[str, TeacherLoss] = {
    "cosine": TeacherLoss(cosine, projects=True),
    "similarity": TeacherLoss(similarity),
    "margin_mse": TeacherLoss(margin_mse, of_triples=True),
}


def get_loss(name: str) -> TeacherLoss:
    """Return the loss of this name, or raise UnknownNameError."""
    try:
        return LOSSES[name]
    except KeyError:
        raise UnknownNameError("loss in teacher.weights", name, [*LOSSES, CONTRAST]) from None
