"""The ``[teacher]`` table of a training config, and the losses that it weighs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from embedder.models.names import PREFIX
from retrieval.errors import UnknownNameError, UsageError

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


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The model that the student learns from, and how.

    Attributes
    ----------
    model : ``st:NAME`` or any model of millpond, which embeds the texts of every step.
    vectors : a .parquet file that ``millpond embed`` wrote of the same texts, or a folder of
        them. With ``model`` too, that embeds the texts that have no vector there.
    weights : how much each loss counts: cosine, similarity, margin_mse and info_nce. Pairs are
        needed for the last two only.
    temperature : of similarity; a smaller one looks at the nearest texts.
    keep_projection : whether the model ends in the projection to the teacher's width, so that its
        vectors can be compared with the teacher's.
    trust_remote_code : whether sentence-transformers may run Python code that comes with the model.
    held_out : about how many texts are never trained on, to compare the student with the teacher.
    """

    model: str | None = None
    vectors: Path | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: {"cosine": 1.0})
    temperature: float = 0.05
    keep_projection: bool = False
    trust_remote_code: bool = False
    held_out: int = 256

    def __post_init__(self) -> None:
        """Refuse a teacher that is not there, and weights of nothing."""
        if self.model is None and self.vectors is None:
            raise UsageError("The table names no teacher. Set model or vectors.")
        if not self.temperature > 0:
            raise UsageError(f"temperature is {self.temperature}; it must be more than 0.")
        if self.held_out < 0:
            raise UsageError(f"held_out is {self.held_out}; it must be 0 or more.")
        for name, weight in self.weights.items():
            if name != CONTRAST:
                get_loss(name)
            if not weight >= 0:
                raise UsageError(f"weights.{name} is {weight}; it must be 0 or more.")
        if not any(self.weights[name] for name in self.weights if name != CONTRAST):
            raise UsageError(
                "weights gives no loss of the teacher any weight. Set cosine or similarity, or "
                "leave [teacher] out."
            )
        if self.keep_projection and not self.projects:
            raise UsageError(
                "keep_projection is true, and no loss trains a projection. Give cosine a weight."
            )

    @property
    def used(self) -> dict[str, float]:
        """The weights above 0, without that of InfoNCE."""
        return {name: value for name, value in self.weights.items() if value and name != CONTRAST}

    @property
    def contrast(self) -> float:
        """The weight of InfoNCE."""
        return self.weights.get(CONTRAST, 0.0)

    @property
    def projects(self) -> bool:
        """Whether a loss compares vectors of the student with the teacher's."""
        return any(get_loss(name).projects for name in self.used)

    @property
    def needs_pairs(self) -> bool:
        """Whether texts alone are not enough."""
        return self.contrast > 0 or any(get_loss(name).of_triples for name in self.used)

    def without_folder(self) -> TeacherConfig:
        """Return the same without the folder where the teacher lies, for a model's record."""
        return replace(self, model=self.model and short_name(self.model))


def short_name(model: str) -> str:
    """Return the name of a teacher with the path in it, if any, cut to its last part."""
    prefix = PREFIX if model.startswith(PREFIX) else ""
    path = model.removeprefix(prefix)
    return prefix + (Path(path).name if Path(path).is_absolute() else path)
