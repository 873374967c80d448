"""What a training run is: one tree of frozen dataclasses, and how TOML becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from embedder.models.lora import LoraOptions
from embedder.models.names import PREFIX
from embedder.pooling import POOLINGS
from embedder.training.distillation.options import TeacherConfig
from embedder.variants import VariantSpec
from retrieval.errors import UsageError
from retrieval.typed import naming, read_dataclass, read_toml

__all__ = [
    "AdapterConfig",
    "CheckpointConfig",
    "DataSource",
    "EvaluateConfig",
    "LossConfig",
    "OptimiserConfig",
    "TeacherConfig",
    "TrainConfig",
    "absolute_path",
    "is_path",
    "load_config",
    "read_config",
]


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One source of training pairs.

    Attributes
    ----------
    path : a .jsonl, .csv, .tsv (also with .gz) or .parquet file of query, positive and negatives
        in any layout that ``embedder.training.data.layouts`` names, or a BEIR folder with
        qrels/train.tsv; with a teacher also texts alone, a .txt file or a corpus. In a config
        file, relative to that file.
    weight : how often a pair of this source is seen, relative to a pair of the others.
    query_prompt, document_prompt : instead of the model's own; see VariantSpec.
    max_query_tokens, max_document_tokens : shorter limits than the model's own.
    """

    path: Path
    weight: float = 1.0
    query_prompt: str | None = None
    document_prompt: str | None = None
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        _above("weight", self.weight, 0)
        for name in ("max_query_tokens", "max_document_tokens"):
            _at_least(name, getattr(self, name), 4)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """InfoNCE over in-batch and hard negatives.

    Attributes
    ----------
    scale : factor of the cosine (1 / temperature); 50 in the paper.
    hard_negatives : most negatives of a pair that enter a batch; drawn anew for each batch.
    matryoshka_dimensions : the loss is averaged over vectors cut to these lengths; empty for
        the whole vector only.
    symmetric : whether positives also look for their query among the batch's queries.
    one_source_per_batch : whether a batch holds pairs of one source only.
    mask_duplicates : whether a text that any pair of the data gives for a query is left out of
        the query's negatives.
    """

    scale: float = 50.0
    hard_negatives: int = 1
    matryoshka_dimensions: tuple[int, ...] = ()
    symmetric: bool = False
    one_source_per_batch: bool = False
    mask_duplicates: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        _above("scale", self.scale, 0)
        _at_least("hard_negatives", self.hard_negatives, 0)
        for dimension in self.matryoshka_dimensions:
            _at_least("matryoshka_dimensions", dimension, 1)
        if len(set(self.matryoshka_dimensions)) < len(self.matryoshka_dimensions):
            raise UsageError("matryoshka_dimensions names a length twice; expected distinct ones.")


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """AdamW and its schedule.

    Attributes
    ----------
    learning_rate : of the backbone's weights or its adapter's.
    pooling_learning_rate : of a trainable pooling; the same by default.
    weight_decay : on matrices; vectors such as norms have none.
    warmup_ratio : share of the steps over which the rate rises from 0.
    schedule : what the rate does afterwards.
    max_gradient_norm : gradients are clipped to this norm; 0 for never.
    """

    learning_rate: float = 1e-5
    pooling_learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup_ratio: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        _above("learning_rate", self.learning_rate, 0)
        if self.pooling_learning_rate is not None:
            _above("pooling_learning_rate", self.pooling_learning_rate, 0)
        _at_least("weight_decay", self.weight_decay, 0)
        _at_least("max_gradient_norm", self.max_gradient_norm, 0)
        if not 0 <= self.warmup_ratio <= 1:
            raise UsageError(f"warmup_ratio is {self.warmup_ratio}; expected 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(LoraOptions):
    """Which of the backbone's weights are trained, a pooling's always are; and how LoRA is.

    Attributes
    ----------
    kind : "lora" for low-rank updates, "full" for every weight, "none" for the pooling alone.
    start : the trained model whose weights training starts from: a built-in one or a folder.
    """

    kind: Literal["lora", "full", "none"] = "lora"
    start: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Scores on held-out data while training.

    Attributes
    ----------
    sts : a .tsv file with a header and the columns score, sentence1, sentence2.
    beir : a BEIR folder.
    beir_split : which qrels of that folder.
    every_steps : how often; 0 for only after the last step.
    best : keep the weights of the step where this was highest, instead of the last step's.
    """

    sts: Path | None = None
    beir: Path | None = None
    beir_split: str = "dev"
    every_steps: int = 0
    best: Literal["sts", "ndcg"] | None = None

    def __post_init__(self) -> None:
        """Refuse a best metric that is never measured."""
        _at_least("every_steps", self.every_steps, 0)
        needed = {"sts": self.sts, "ndcg": self.beir}
        if self.best is not None and needed[self.best] is None:
            source = "sts" if self.best == "sts" else "beir"
            raise UsageError(f"best is {self.best!r}, which needs evaluate.{source} to be set.")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What lets a killed run go on.

    Attributes
    ----------
    every_steps : how often the whole state of the run is written; 0 for never.
    keep : how many of the last ones stay; the best one stays as well.
    """

    every_steps: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        _at_least("every_steps", self.every_steps, 0)
        _at_least("keep", self.keep, 1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run.

    Attributes
    ----------
    batch_pairs : pairs in one step, over all processes together.
    steps, epochs : how long; exactly one of the two is given.
    forward_tokens : most tokens, padding included, in one forward pass; by default, it depends
        on the device.
    gradient_cache : compute each step's gradient one forward pass at a time (GradCache), so that
        memory does not grow with the batch; costs a second forward pass.
    gradient_checkpointing : keep each layer's input only and compute the rest again.
    dtype : what the backbone computes in; "auto" is bfloat16 on a GPU that has it.
    log_every_steps : how often a line goes to metrics.jsonl.
    weights_dtype : of the saved weights; bfloat16 halves the files and rounds the vectors.

    Raises
    ------
    UsageError : a number out of range, or nothing would be trained.
    """

    model: VariantSpec
    data: tuple[DataSource, ...]
    batch_pairs: int
    steps: int | None = None
    epochs: float | None = None
    seed: int = 0
    forward_tokens: int | None = None
    gradient_cache: bool = False
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    log_every_steps: int = 10
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    teacher: TeacherConfig | None = None

    def __post_init__(self) -> None:
        """Check what one part alone cannot know."""
        _at_least("batch_pairs", self.batch_pairs, 2)
        _at_least("forward_tokens", self.forward_tokens, 1)
        _at_least("log_every_steps", self.log_every_steps, 1)
        _at_least("seed", self.seed, 0)
        _at_least("steps", self.steps, 1)
        if (self.steps is None) == (self.epochs is None):
            found = "neither steps nor epochs" if self.steps is None else "both steps and epochs"
            raise UsageError(f"The config has {found}; expected one of the two.")
        if self.epochs is not None:
            _above("epochs", self.epochs, 0)
        if self.teacher is not None:
            self._check_teacher(self.teacher)
        if not self.data:
            raise UsageError("The config names no data. Add a [[data]] table with a path.")
        if self.adapter.kind == "none" and not (
            POOLINGS[self.model.pooling].trainable or self.model.pooling_options.whiten
        ):
            raise UsageError(
                f'adapter.kind is "none" and pooling {self.model.pooling!r} has no weights, so '
                f'nothing would be trained. Set adapter.kind to "lora" or "full".'
            )
        if not self.model.pool_prompt:
            raise UsageError(
                "model.pool_prompt is false, so the pooling has to know where a prompt ends, which "
                "token ids alone do not say: such a model cannot be trained. Leave it out."
            )
        for index, source in enumerate(self.data):
            for name in ("max_query_tokens", "max_document_tokens"):
                limit = getattr(source, name)
                if limit is not None and limit > self.model.max_tokens:
                    raise UsageError(
                        f"data[{index}].{name} is {limit}, more than model.max_tokens "
                        f"({self.model.max_tokens})."
                    )

    def _check_teacher(self, teacher: TeacherConfig) -> None:
        if self.loss.matryoshka_dimensions and not teacher.contrast:
            raise UsageError(
                "loss.matryoshka_dimensions is set, and only InfoNCE uses it. Give info_nce a "
                "weight in [teacher.weights], or leave it out."
            )
        model = self.model
        if teacher.keep_projection and (
            model.head or model.dimension or model.pooling_options.whiten
        ):
            raise UsageError(
                "teacher.keep_projection is true, and the model has a whitening, a dimension or "
                "layers after its pooling. Leave them out, or set keep_projection to false."
            )


def load_config(path: str | Path) -> TrainConfig:
    """Return the config of a TOML file; paths in it are relative to its folder.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UnknownNameError, UsageError : it is not TOML, or holds an unknown key or a wrong value.
    """
    data = read_toml(Path(path), f"Type: millpond train --example > {path}")
    with naming(Path(path)):
        return read_config(data, Path(path).parent)


def read_config(data: Mapping[str, Any], folder: Path) -> TrainConfig:
    """Return the config that a mapping describes, its paths made absolute from ``folder``."""
    config = read_dataclass(TrainConfig, data)

    absolute = partial(absolute_path, folder)

    def place(name: str) -> str:
        return str(absolute(name)) if is_path(name) else name

    start, evaluate, teacher = config.adapter.start, config.evaluate, config.teacher
    if teacher is not None:
        model = teacher.model and _place_teacher(teacher.model, place)
        vectors = teacher.vectors and absolute(teacher.vectors)
        teacher = replace(teacher, model=model, vectors=vectors)
    return replace(
        config,
        model=replace(config.model, base=place(config.model.base)),
        adapter=replace(config.adapter, start=start and place(start)),
        data=tuple(replace(source, path=absolute(source.path)) for source in config.data),
        evaluate=replace(
            evaluate,
            sts=evaluate.sts and absolute(evaluate.sts),
            beir=evaluate.beir and absolute(evaluate.beir),
        ),
        teacher=teacher,
    )


def _place_teacher(name: str, place: Callable[[str], str]) -> str:
    """Return the teacher's name with the path in it, if any, made absolute."""
    prefix = PREFIX if name.startswith(PREFIX) else ""
    return prefix + place(name.removeprefix(PREFIX))


def absolute_path(folder: Path, path: str | Path) -> Path:
    """Return the absolute path of what a config in ``folder`` names; ~ is the home folder."""
    return (folder / Path(path).expanduser()).resolve()


def is_path(name: str) -> bool:
    """Whether the name of a model or base is the path of a file or folder."""
    return name.startswith((".", "/", "~"))


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:
        raise UsageError(f"{name} is {value}; it must be {least} or more.")


def _above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise UsageError(f"{name} is {value}; it must be more than {bound}.")
