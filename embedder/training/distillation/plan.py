"""The training config of ``millpond distill``: student, teacher, texts, and the usual rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from embedder.models.lora import LoraOptions
from embedder.models.manifest import read_manifest
from embedder.models.names import DEFAULT_VARIANT, builtin_folder, find_saved_model
from embedder.training.config import (
    AdapterConfig,
    CheckpointConfig,
    DataSource,
    EvaluateConfig,
    OptimiserConfig,
    TrainConfig,
)
from embedder.training.distillation.options import TeacherConfig
from embedder.training.setup import saved_scaling
from embedder.variants import VariantSpec, parse_model_name
from retrieval.errors import UsageError

_LORA = LoraOptions(rank=32, alpha=64, dropout=0.0)
_EVERY_STEPS = 100
"""Between evaluations, and between checkpoints."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """What ``millpond distill`` lets a user choose.

    Attributes
    ----------
    teacher, student : names of models; a trained student is trained on.
    texts : .txt files, corpora, or files of pairs, whose texts are all lessons.
    vectors : of the teacher, made before.
    trust_remote_code : as in TeacherConfig.
    keep_projection : whether the student's vectors can be compared with the teacher's.
    sts : a dev set, for the scores while it trains.
    """

    teacher: str | None
    student: str
    texts: Sequence[Path]
    vectors: Path | None = None
    epochs: float = 1.0
    batch_texts: int = 64
    learning_rate: float = 5e-4
    keep_projection: bool = False
    trust_remote_code: bool = False
    sts: Path | None = None


def plan_distillation(options: DistillOptions) -> TrainConfig:
    """Return the config: LoRA of rank 32, cosine and half as much similarity, a linear schedule.

    Raises
    ------
    UsageError : the student holds a whole base, or a number is out of range.
    UnknownNameError : no such student.
    """
    start, spec, lora = _student(options.student)
    return TrainConfig(
        model=spec,
        data=tuple(DataSource(path=path.resolve()) for path in options.texts),
        batch_pairs=options.batch_texts,
        epochs=options.epochs,
        teacher=TeacherConfig(
            model=options.teacher,
            vectors=options.vectors and options.vectors.resolve(),
            weights={"cosine": 1.0, "similarity": 0.5},
            keep_projection=options.keep_projection,
            trust_remote_code=options.trust_remote_code,
        ),
        optimiser=OptimiserConfig(learning_rate=options.learning_rate, warmup_ratio=0.05),
        adapter=AdapterConfig(rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, start=start),
        evaluate=EvaluateConfig(
            sts=options.sts and options.sts.resolve(), every_steps=_EVERY_STEPS
        ),
        checkpoint=CheckpointConfig(every_steps=_EVERY_STEPS),
    )


def _student(name: str) -> tuple[str | None, VariantSpec, LoraOptions]:
    """Return what to start from, the spec, and the LoRA; those of a trained model are its own."""
    saved = find_saved_model(name)
    if saved is None:
        return None, parse_model_name(name, DEFAULT_VARIANT), _LORA
    manifest = read_manifest(saved.folder)
    if manifest.is_whole or not manifest.has_adapter:
        raise UsageError(
            f"The student {name!r} has no LoRA to train on. Name its base with a pooling and an "
            f"attention, or write a config for millpond train."
        )
    rank, alpha = saved_scaling(saved.folder)
    start = name if builtin_folder(name) else str(saved.folder)
    return start, replace(manifest.spec, **saved.options), LoraOptions(rank, alpha, 0.0)
