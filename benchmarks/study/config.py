"""What a study is: bases x variants x seeds, one budget for all, and the tasks that score them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.scoring.config import BenchConfig
from benchmarks.tasks.datasets import BEIR_PREFIX
from benchmarks.tasks.mteb import MTEB_PREFIX
from embedder.pooling import PoolingOptions
from embedder.training.config import (
    AdapterConfig,
    CheckpointConfig,
    DataSource,
    LossConfig,
    OptimiserConfig,
    absolute_path,
    is_path,
)
from embedder.variants import get_variant
from retrieval.errors import UnknownNameError, UsageError, count_noun
from retrieval.typed import naming, read_dataclass, read_toml

LayerChoice = Literal["all", "first third", "middle third", "last third", "every fourth"]
LAYER_CHOICES: tuple[LayerChoice, ...] = get_args(LayerChoice)


@dataclass(frozen=True, kw_only=True)
class StudyBase:
    """A base that every variant is put on; see ``embedder.variants.VariantSpec``.

    Attributes
    ----------
    name : in tables; the base's own by default.
    base_layers : how many of its decoder layers are kept, all of them by default. A variant that
        reads a part of the layers needs the number.
    """

    base: str
    name: str = ""
    revision: str | None = None
    base_layers: int | None = None
    max_tokens: int = 512
    query_prompt: str = ""
    document_prompt: str = ""
    chat_template: bool = False
    lowercase: bool = False

    def __post_init__(self) -> None:
        """Name the base after itself by default."""
        if not self.name:
            object.__setattr__(self, "name", self.base)


@dataclass(frozen=True, kw_only=True)
class StudyVariant:
    """One row of the study's tables.

    Attributes
    ----------
    name : in tables; also the variant, where ``variant`` is not given.
    variant : "model1" to "model5", or POOLING+ATTENTION.
    options : of its pooling, beyond those of the whole study.
    layers : which part of the base's layers a pooling over layers reads.
    bases : the names of the bases it is trained on; all by default.
    ablation : whether it takes a design apart, so that it has a table of its own.
    """

    name: str
    variant: str = ""
    options: PoolingOptions = field(default_factory=PoolingOptions)
    layers: LayerChoice = "all"
    bases: tuple[str, ...] = ()
    ablation: bool = False

    def __post_init__(self) -> None:
        """Refuse a variant that does not exist."""
        if not self.variant:
            object.__setattr__(self, "variant", self.name)
        get_variant(self.variant)
        if self.layers != "all" and self.options.layers:
            raise UsageError(
                f"The variant {self.name!r} has layers and options.layers; expected one of the two."
            )


@dataclass(frozen=True, kw_only=True)
class TrainBudget:
    """What every run is trained with; see ``embedder.training.TrainConfig``.

    The order of the data, the hard negatives and the dropout's seeds depend on the run's seed
    and the step alone, so all variants of a seed see the same batches.
    """

    data: tuple[DataSource, ...]
    batch_pairs: int
    steps: int
    forward_tokens: int | None = None
    gradient_cache: bool = False
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    log_every_steps: int = 10
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        """Refuse a start that fits one variant only."""
        if self.adapter.start is not None:
            raise UsageError(
                "train.adapter.start names a trained model, which is of one variant; all variants "
                "of a study start from the untrained base. Leave it out."
            )


@dataclass(frozen=True, kw_only=True)
class CutConfig:
    """How much of each task is used, drawn once for all runs; 0 for all of it.

    Attributes
    ----------
    sts_pairs, clustering_rows, test_rows : rows of an STS task, of a clustering task, and of the
        test part of a classification task. The training part of the latter stays whole.
    queries, documents : of a retrieval task. What is relevant for a kept query always stays, also
        where that makes more documents; fewer documents make a task easier.
    seed : of the draws.
    """

    sts_pairs: int = 0
    clustering_rows: int = 0
    test_rows: int = 0
    queries: int = 0
    documents: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers below 0."""
        for name in ("sts_pairs", "clustering_rows", "test_rows", "queries", "documents", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"cut.{name} is {getattr(self, name)}; it must be 0 or more.")

    @property
    def any(self) -> bool:
        """Whether anything is cut."""
        return self != CutConfig(seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How the runs are scored; see ``benchmarks.BenchConfig``."""

    k: int = 10
    split: str = "test"
    backend: str = "faiss"
    factory: str = "Flat"
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be scored before anything is trained."""
        BenchConfig(models=[""], tasks=[""], out=Path(), **vars(self))


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A whole study.

    Attributes
    ----------
    seeds : one training run each, of every variant; fewer than 3 say little about chance.
    tasks : files and folders as ``millpond bench`` takes them; in a config file, relative to it.
    baseline : the name of the variant that the tables compare the others with.
    alpha : level of significance after correction; intervals have confidence 1 - alpha.
    margin : the least gain that matters, where scores go from 0 to 1.
    resamples, bootstrap_resamples : see ``benchmarks.significance.compare.CompareConfig``.
    pooling : options of every pooling with weights, those that it accepts.
    sample_texts : how many texts the analysis of the layers reads.
    keep_adapters : whether trained models stay; else a run's is deleted once it is scored.

    Raises
    ------
    UsageError, UnknownNameError : a number out of range, a name twice, or one that is not there.
    """

    bases: tuple[StudyBase, ...]
    variants: tuple[StudyVariant, ...]
    train: TrainBudget
    tasks: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    title: str = "Does the paper hold?"
    departures: tuple[str, ...] = ()
    baseline: str = "model1"
    alpha: float = 0.05
    margin: float = 0.01
    resamples: int = 100_000
    bootstrap_resamples: int = 10_000
    pooling: PoolingOptions = field(default_factory=PoolingOptions)
    cut: CutConfig = field(default_factory=CutConfig)
    bench: BenchOptions = field(default_factory=BenchOptions)
    sample_texts: int = 64
    keep_adapters: bool = False

    def __post_init__(self) -> None:
        """Check the parts against each other."""
        for kind, names in (
            ("base", [base.name for base in self.bases]),
            ("variant", [variant.name for variant in self.variants]),
            ("seed", [str(seed) for seed in self.seeds]),
            ("task", list(self.tasks)),
        ):
            _check_names(kind, names)
        known = [variant.name for variant in self.variants]
        if self.baseline not in known:
            raise UnknownNameError("baseline", self.baseline, known)
        for variant in self.variants:
            for name in variant.bases:
                if name not in [base.name for base in self.bases]:
                    raise UnknownNameError("base", name, [base.name for base in self.bases])
        for name, least in (("sample_texts", 2), ("resamples", 100), ("bootstrap_resamples", 100)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        for name in ("alpha", "margin"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name):g}; it must be between 0 and 1.")
        if min(self.seeds) < 0:
            raise UsageError(f"seeds holds {min(self.seeds)}; each must be 0 or more.")

    @property
    def cautions(self) -> list[str]:
        """What a reader of the results has to be told, a sentence each."""
        found = []
        if len(self.seeds) < 3:
            found.append(
                f"Each variant is trained with {count_noun(len(self.seeds), 'seed')}; 3 or more "
                f"are needed to see how much of a difference is the luck of a training run."
            )
        if self.cut.any:
            found.append(
                "The tasks were cut, so scores compare with each other only, not "
                "with those of the whole tasks."
            )
        return found


def choose_layers(choice: LayerChoice, depth: int) -> tuple[int, ...]:
    """Return the layers, from 1, that a word stands for; empty for all.

    Thirds are as equal as can be; "every fourth" ends with the last layer.

    Raises
    ------
    UsageError : there are fewer than three layers.
    """
    if choice == "all":
        return ()
    if depth < 3:
        raise UsageError(f"{choice!r} needs 3 layers or more, and there are {depth}.")
    if choice == "every fourth":
        return tuple(range(depth % 4 or 4, depth + 1, 4))
    third = LAYER_CHOICES.index(choice) - 1
    return tuple(range(round(depth * third / 3) + 1, round(depth * (third + 1) / 3) + 1))


def _check_names(kind: str, names: Sequence[str]) -> None:
    if not names:
        raise UsageError(f"The study has no {kind}; expected one or more.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"The {kind} {twice[0]!r} is in the study twice; expected it once.")


def load_study(path: str | Path) -> StudyConfig:
    """Return the study of a TOML file; paths in it are relative to its folder.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UnknownNameError, UsageError : it is not TOML, or holds an unknown key or a wrong value.
    """
    data = read_toml(Path(path), f"Type: millpond study --example > {path}")
    with naming(Path(path)):
        return read_study(data, Path(path).parent)


def read_study(data: Mapping[str, Any], folder: Path) -> StudyConfig:
    """Return the study that a mapping describes, its paths made absolute from ``folder``."""
    config = read_dataclass(StudyConfig, data)

    absolute = partial(absolute_path, folder)

    def place(name: str, stands_on_disk: bool) -> str:
        return str(absolute(name)) if stands_on_disk else name

    return replace(
        config,
        bases=tuple(
            replace(base, base=place(base.base, is_path(base.base))) for base in config.bases
        ),
        tasks=tuple(
            place(task, not task.startswith((BEIR_PREFIX, MTEB_PREFIX))) for task in config.tasks
        ),
        train=replace(
            config.train,
            data=tuple(replace(source, path=absolute(source.path)) for source in config.train.data),
        ),
    )
