"""Runs a study: every run is trained, scored and analysed, and kept as soon as it is done."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from benchmarks.scoring.cache import ShowProgress, show_nothing
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.costs import PeakMemory
from benchmarks.scoring.models import LoadedModel, load_model
from benchmarks.scoring.remembered import Remembered
from benchmarks.scoring.runner import Failure, release_memory, run_benchmark
from benchmarks.study.config import BenchOptions, StudyConfig
from benchmarks.study.runs import RunRecord, StudyFolder, StudyRun, list_runs
from benchmarks.study.tasks import LoadedTask, embedded_texts, load_tasks, sample_texts
from benchmarks.tasks import identify_task
from embedder.models.manifest import ADAPTER_WEIGHTS, POOLING_WEIGHTS
from embedder.pooling import PoolingOptions
from embedder.training.config import TrainConfig
from embedder.training.data import check_data
from indexes.backends.registry import BACKENDS
from retrieval.errors import FailureError, MillpondError, UsageError
from retrieval.protocols import Notify, silent
from retrieval.typed import plain_data

if TYPE_CHECKING:
    from embedder.training import StepReport

_CURVE_POINTS = 200
_PARTS = {
    "adapter_parameters": ADAPTER_WEIGHTS,
    "pooling_parameters": POOLING_WEIGHTS,
}


@dataclass(frozen=True)
class StudyOutcome:
    """What became of the runs.

    Attributes
    ----------
    done : names of all finished runs, of this run and of earlier ones.
    failed : name to stage and error.
    """

    done: Sequence[str]
    failed: Mapping[str, str]


def run_study(
    config: StudyConfig,
    out: str | Path,
    *,
    device: str | None = None,
    notify: Notify = silent,
    progress: ShowProgress = show_nothing,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> StudyOutcome:
    """Run every run that is not done yet, in order, and return what became of all of them.

    A finished run is never run again; one that was killed goes on from its last checkpoint; one
    that failed is recorded with its error, does not stop the others, and is tried again by the
    next call. Config, data and tasks are checked before anything is computed.

    Parameters
    ----------
    notify : receives one line for each slow or notable step.
    progress : shows how far a long step is.
    on_step : receives each finished training step.

    Raises
    ------
    UsageError, RecordError : the config, the data or a task is not as it must be, or ``out`` holds
        another study.
    DownloadError, StorageError : a task cannot be fetched, or the folder not be written.
    """
    return _Study(config, Path(out), device, notify, progress, on_step).run()


def check_runs(runs: Sequence[StudyRun], bench: BenchOptions) -> None:
    """Raise UsageError, with its name, for a run that its base cannot be trained or scored as.

    Each base and variant is looked at once, without weights.
    """
    from embedder.training.checks import check_model

    for run in {(run.base, run.variant): run for run in reversed(runs)}.values():
        try:
            dimension = check_model(run.train, silent)
            if dimension is not None:
                BACKENDS[bench.backend].check(dimension, bench.factory)
        except MillpondError as error:
            raise UsageError(f"{run.base}: {run.variant}: {error}") from error


class _Study:
    """The state of one ``run_study``."""

    def __init__(
        self,
        config: StudyConfig,
        out: Path,
        device: str | None,
        notify: Notify,
        progress: ShowProgress,
        on_step: Callable[[StepReport], None],
    ) -> None:
        self.config, self.device = config, device
        self.notify, self.progress, self.on_step = notify, progress, on_step
        self.folder = StudyFolder(out)
        self.runs = list_runs(config)
        about = {"config": plain_data(config)}
        self.folder.check(about)
        self.tasks = load_tasks(config, self.folder.tasks, notify)
        data = check_data(self.runs[0].train)
        check_runs(self.runs, config.bench)
        hashes = {one.task.name: _hash(self.folder, one) for one in self.tasks}
        self.folder.start(about | {"data": data.record(), "tasks": hashes})
        texts = [text for one in self.tasks for text in embedded_texts(one.data)]
        self.sample = sample_texts(texts, config.sample_texts)

    def run(self) -> StudyOutcome:
        """Run everything that is not done."""
        done: list[str] = []
        failed: dict[str, str] = {}
        for number, run in enumerate(self.runs, start=1):
            record = self.folder.read_record(run)
            if record is None or record.status != "done":
                self.notify(f"Run {number} of {len(self.runs)}: {run.name}")
                record = self._attempt(run)
                self.folder.write_record(run, record)
            if record.status == "done":
                done.append(run.name)
                self.folder.tidy(run, self.config.keep_adapters)
            else:
                failed[run.name] = f"{record.stage}: {record.error}"
                self.notify(f"Failed: {run.name}: {failed[run.name]}")
            release_memory()
        return StudyOutcome(done, failed)

    def _attempt(self, run: StudyRun) -> RunRecord:
        """Run one and return its record, also if it failed."""
        stage = "training"
        training: Mapping[str, Any] = {}
        try:
            training = self._train(run)
            stage = "scoring"
            loaded = self._score(run)
            stage = "analysis"
            analysis = self._analyse(run, loaded)
        except Exception as error:  # whatever it is, the other runs can still be run
            kind = "" if isinstance(error, MillpondError) else f"{type(error).__name__}: "
            self.folder.write_error(run, traceback.format_exc())
            return RunRecord("failed", stage, f"{kind}{error}", training)
        return RunRecord("done", training=training, analysis=analysis)

    def _train(self, run: StudyRun) -> Mapping[str, Any]:
        """Train a run, or go on with it, and return what that cost."""
        from embedder.environment import choose_device
        from embedder.training import train

        model = self.folder.model(run)
        known = self.folder.read_training(run)
        if known and (model / "millpond.json").is_file():
            return known
        with PeakMemory(choose_device(self.device).type) as memory:
            train(
                run.train,
                model,
                resume=True,
                device=self.device,
                notify=self.notify,
                progress=self.on_step,
            )
        found = _describe_training(model, run.train) | {"peak_memory_bytes": memory.bytes}
        self.folder.write_training(run, found)
        return found

    def _score(self, run: StudyRun) -> LoadedModel:
        """Score a run's model on all tasks, and return the model."""
        kept: list[LoadedModel] = []
        path = str(self.folder.model(run))

        def load(name: str, device: str | None, notify: Notify) -> LoadedModel:
            if not kept:
                kept.append(load_model(path, device, notify))
            return kept[0]

        failures: list[Failure] = []
        bench = BenchConfig(
            models=[run.name],
            tasks=[str(one.task.path) for one in self.tasks],
            out=self.folder.results,
            device=self.device,
            **vars(self.config.bench),
        )
        run_benchmark(
            bench,
            notify=self.notify,
            progress=self.progress,
            on_failure=failures.append,
            load=load,
        )
        if failures:
            raise FailureError("; ".join(str(failure) for failure in failures))
        return load(run.name, self.device, self.notify)

    def _analyse(self, run: StudyRun, loaded: LoadedModel) -> Mapping[str, Any]:
        """Analyse a trained model and, once for all of its variants, its untrained base."""
        from benchmarks.study.layers import analyse_model
        from embedder import Embedder

        embedder = loaded.encoder
        assert isinstance(embedder, Embedder)
        if not self.folder.read_base(run):
            plain = replace(run.train.model, pooling="mean", pooling_options=PoolingOptions())
            untrained = Embedder.from_spec(plain, device=self.device, notify=self.notify)
            found = analyse_model(untrained, self.sample)
            self.folder.write_base(run, {"correlation": found["correlation"]})
        return analyse_model(embedder, self.sample)


def _hash(folder: StudyFolder, loaded: LoadedTask) -> dict[str, Any]:
    """Return what stands for a task's data: the checksums of its files by role."""
    remembered = Remembered(folder.results / ".cache" / "known")
    return dict(identify_task(loaded.task, remembered.hash_files))


def _describe_training(model: Path, config: TrainConfig) -> dict[str, Any]:
    """Return seconds, tokens, rates, sizes and the loss curve of a finished run.

    Seconds and tokens are of the steps alone, without loading, over all parts of a run that was
    stopped and resumed.
    """
    entries = [
        json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines() if line
    ]
    steps = [entry for entry in entries if "loss" in entry]
    seconds = tokens = 0.0
    before = 0
    for entry in steps:
        pairs = (entry["step"] - before) * config.batch_pairs
        took = pairs / max(entry["pairs_per_second"], 1e-9)
        seconds += took
        tokens += took * entry["tokens_per_second"]
        before = entry["step"]
    curve = [(entry["step"], entry["loss"]) for entry in steps]
    return {
        "seconds": round(seconds, 3),
        "tokens": round(tokens),
        "pairs": before * config.batch_pairs,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
        "model_bytes": sum(path.stat().st_size for path in model.rglob("*") if path.is_file()),
        "curve": curve[:: max(1, len(curve) // _CURVE_POINTS)],
        **{name: _count_numbers(model / part) for name, part in _PARTS.items()},
    }


def _count_numbers(path: Path) -> int:
    """Return how many numbers a safetensors file holds; 0 where there is none."""
    if not path.is_file():
        return 0
    with safe_open(path, "numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
