"""The ``[teacher]`` table of a training config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedder.models.names import PREFIX
from embedder.training.distillation.losses import CONTRAST, get_loss
from retrieval.errors import UsageError


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
