"""The runs of a study, one for each base, variant and seed, and the folder that keeps them.

::

    STUDY/
      study.json                  the config, and checksums of the data and the tasks
      runs/<run>/run.json      a finished or failed run: training, cost, analysis
      runs/<run>/model/         while it is trained and scored; it stays with keep_adapters
      results/                    a results folder as 'millpond bench' writes it, one model per run
      tasks/                      tasks that were cut
      bases/<base>--<attention>.json   the layers of the untrained bases
      summary.json, report.html, report.md
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from benchmarks.study.config import StudyBase, StudyConfig, StudyVariant, choose_layers
from embedder.pooling import POOLINGS, PoolingOptions
from embedder.training.config import TrainConfig
from embedder.variants import VariantSpec, get_variant
from retrieval.disk import make_folder, replace_file
from retrieval.errors import FailureError, UsageError
from retrieval.typed import find_differences, load_json, read_stored

T = TypeVar("T")

FORMAT = 1
_SHOWN = 80
_MAY_CHANGE = (
    "config.title",
    "config.departures",
    "config.baseline",
    "config.alpha",
    "config.margin",
    "config.resamples",
    "config.bootstrap_resamples",
    "config.keep_adapters",
    "config.train.checkpoint",
)
"""What changes the report, or nothing, and no number that was kept."""


@dataclass(frozen=True)
class StudyRun:
    """One training run.

    Attributes
    ----------
    base, variant, seed : names, as tables show them.
    train : all that decides its weights.
    """

    base: str
    variant: str
    seed: int
    train: TrainConfig

    @property
    def name(self) -> str:
        """What results and messages call it."""
        return f"{self.base}: {self.variant}, seed {self.seed}"

    @property
    def folder_name(self) -> str:
        """A name that a file system takes."""
        parts = (re.sub(r"[^A-Za-z0-9.+=-]+", "_", part) for part in (self.base, self.variant))
        return "--".join([*parts, f"seed-{self.seed}"])


def list_runs(config: StudyConfig) -> list[StudyRun]:
    """Return every run, all variants of a seed before the next seed.

    So a study that is stopped early has whole seeds.

    Raises
    ------
    UsageError : a variant cannot be had on a base, or two names cannot be told apart in a folder.
    """
    runs = [
        StudyRun(base.name, variant.name, seed, _train_config(config, base, variant, seed))
        for seed in config.seeds
        for base in config.bases
        for variant in config.variants
        if not variant.bases or base.name in variant.bases
    ]
    known: dict[str, StudyRun] = {}
    for run in runs:
        other = known.setdefault(run.folder_name, run)
        if other is not run:
            raise UsageError(
                f"{other.name!r} and {run.name!r} would share the folder {run.folder_name!r}. "
                f"Rename a base or a variant."
            )
    return runs


def _train_config(
    config: StudyConfig, base: StudyBase, variant: StudyVariant, seed: int
) -> TrainConfig:
    budget = {one.name: getattr(config.train, one.name) for one in fields(config.train)}
    return TrainConfig(**budget, model=_spec(config, base, variant, seed), seed=seed)


def _spec(config: StudyConfig, base: StudyBase, variant: StudyVariant, seed: int) -> VariantSpec:
    found = get_variant(variant.variant)
    settings = asdict(base)
    del settings["name"]
    accepted = POOLINGS[found.pooling].options
    shared: dict[str, Any] = {"seed": seed, **config.pooling.changed()}
    options = {name: value for name, value in shared.items() if name in accepted}
    options |= variant.options.changed()
    if variant.layers != "all":
        if base.base_layers is None:
            raise UsageError(
                f"The variant {variant.name!r} reads {variant.layers!r} of the layers, so "
                f"base_layers of {base.name} must be given, also where all are kept."
            )
        options["layers"] = choose_layers(variant.layers, base.base_layers)
    return VariantSpec(
        **settings,
        pooling=found.pooling,
        attention=found.attention,
        pooling_options=PoolingOptions(**options),
    )


@dataclass(frozen=True)
class Training:
    """What a training cost, as far as it is known; ``curve`` is the loss as (step, loss)."""

    seconds: float | None = None
    tokens: float | None = None
    pairs: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: float | None = None
    adapter_parameters: float | None = None
    pooling_parameters: float | None = None
    model_bytes: float | None = None
    curve: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class Reading:
    """Which layers a pooling reads, and the share of each."""

    layers: tuple[int, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Analysis:
    """What ``benchmarks.study.layers.analyse_model`` returns, as far as it is known."""

    correlation: tuple[tuple[float, ...], ...] | None = None
    flops: float | None = None
    reading: Reading | None = None
    attention: Mapping[str, float] | None = None


@dataclass(frozen=True)
class RunRecord:
    """What became of a run.

    Attributes
    ----------
    status : "done" or "failed".
    stage, error : where it failed, and why.
    training : the fields of ``Training`` that are known.
    analysis : the fields of ``Analysis`` that are known.
    """

    status: Literal["done", "failed"]
    stage: str = ""
    error: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    analysis: Mapping[str, Any] = field(default_factory=dict)


class StudyFolder:
    """Where a study keeps what it has done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results"
        self.tasks = path / "tasks"
        self._study = path / "study.json"

    def check(self, now: Mapping[str, Any]) -> None:
        """Refuse a folder that holds another study, or something else.

        Raises
        ------
        UsageError : what is in ``now`` changed, and the message names what did; or the path is
            taken by something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: this is a file; expected a folder.")
        if self._study.is_file():
            self._compare(now)
        elif self.path.is_dir() and any(entry != self.tasks for entry in self.path.iterdir()):
            raise UsageError(
                f"{self.path}: the folder is not empty and holds no study. Name another folder."
            )

    def start(self, now: Mapping[str, Any]) -> None:
        """Write the study's config and checksums, after ``check``.

        Parameters
        ----------
        now : "config", and what identifies "data" and "tasks", as JSON holds them.

        Raises
        ------
        UsageError : as ``check``.
        StorageError : the folder cannot be written.
        """
        self.check(now)
        self._write(self._study, {"millpond_study": FORMAT, **now})

    def _compare(self, now: Mapping[str, Any]) -> None:
        before = _read(self._study, dict)
        changed = [
            f"{key} was {_short(old)} and is {_short(new)}"
            for part in now
            for key, old, new in find_differences(before.get(part), now[part], part)
            if not key.startswith(_MAY_CHANGE)
        ]
        if changed:
            raise UsageError(
                f"{self.path} holds another study: {'; '.join(changed[:5])}"
                f"{f'; and {len(changed) - 5} more' if len(changed) > 5 else ''}. Set it back to "
                f"go on, or name another folder."
            )

    def config(self) -> Mapping[str, Any]:
        """Return the config of the study that the folder holds, as JSON."""
        found: Mapping[str, Any] = _read(self._study, dict).get("config", {})
        return found

    def model(self, run: StudyRun) -> Path:
        """Return where a run's model is trained."""
        return self._run(run) / "model"

    def read_record(self, run: StudyRun) -> RunRecord | None:
        """Return the record of a run, None if it has not come to an end."""
        path = self._run(run) / "run.json"
        if not path.is_file():
            return None
        record = _read(path, RunRecord)
        _check(path, Training, record.training)
        _check(path, Analysis, record.analysis)
        return record

    def write_record(self, run: StudyRun, record: RunRecord) -> None:
        """Keep what became of a run."""
        self._write(self._run(run) / "run.json", asdict(record))

    def write_error(self, run: StudyRun, text: str) -> None:
        """Keep the traceback of a failed run."""
        make_folder(self._run(run))
        replace_file(self._run(run) / "error.txt", text.encode("utf-8", "backslashreplace"))

    def read_training(self, run: StudyRun) -> dict[str, Any]:
        """Return what is known of a training that has ended; empty where nothing is."""
        path = self._run(run) / "training.json"
        return _check(path, Training, _read(path, dict)) if path.is_file() else {}

    def write_training(self, run: StudyRun, training: Mapping[str, Any]) -> None:
        """Keep what a training cost, as soon as it has ended."""
        self._write(self._run(run) / "training.json", training)

    def base_path(self, run: StudyRun) -> Path:
        """Return where the analysis of a run's untrained base is kept."""
        name = f"{run.folder_name.partition('--')[0]}--{run.train.model.attention}.json"
        return self.path / "bases" / name

    def read_base(self, run: StudyRun) -> dict[str, Any]:
        """Return the analysis of a run's untrained base; empty where there is none."""
        path = self.base_path(run)
        return _check(path, Analysis, _read(path, dict)) if path.is_file() else {}

    def write_base(self, run: StudyRun, analysis: Mapping[str, Any]) -> None:
        """Keep the analysis of an untrained base."""
        self._write(self.base_path(run), analysis)

    def tidy(self, run: StudyRun, keep_adapter: bool) -> None:
        """Delete what a finished run needs no more: vectors, indexes, and its model."""
        for name in ("vectors", "indexes"):
            shutil.rmtree(self.results / ".cache" / name, ignore_errors=True)
        if not keep_adapter:
            shutil.rmtree(self.model(run), ignore_errors=True)

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the report and return its path."""
        path = self.path / name
        replace_file(path, text.encode())
        return path

    def _run(self, run: StudyRun) -> Path:
        return self.path / "runs" / run.folder_name

    def _write(self, path: Path, data: Mapping[str, Any]) -> None:
        make_folder(path.parent)
        replace_file(path, f"{json.dumps(data, ensure_ascii=False)}\n".encode())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _read(path: Path, kind: type[T]) -> T:
    """Return what a file of the study holds, every key and type checked."""
    try:
        found = load_json(path)
        if kind is not dict:
            return read_stored(kind, found)
        if not isinstance(found, kind):
            raise ValueError("it is no JSON object")
        return found
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _check(path: Path, kind: type, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file holds, whose keys and types are those of ``kind``."""
    try:
        read_stored(kind, found)
    except ValueError as error:
        raise _damaged(path, error) from error
    return dict(found)


def _damaged(path: Path, error: Exception) -> FailureError:
    return FailureError(f"{path}: cannot be read ({error}). Delete it and run again.")
