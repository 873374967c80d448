"""Runs a study: every run is trained, scored and looked into, and kept as soon as it is done."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scoring.cache import ShowProgress
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.costs import PeakMemory
from benchmarks.scoring.models import LoadedModel, Notify, load_model
from benchmarks.scoring.remembered import Remembered
from benchmarks.scoring.runner import Failure, release_memory, run_benchmark
from benchmarks.study.config import StudyConfig
from benchmarks.study.folder import RunRecord, StudyFolder
from benchmarks.study.layers import analyse_model, sample_texts
from benchmarks.study.runs import StudyRun, list_runs
from benchmarks.study.tasks import LoadedTask, embedded_texts, load_tasks
from benchmarks.study.training import describe_training
from benchmarks.tasks import task_files
from embedder.pooling import PoolingOptions
from embedder.training.data import check_data
from retrieval import Progress
from retrieval.errors import FailureError, MillpondError
from retrieval.typed import plain_data

if TYPE_CHECKING:
    from embedder.training import StepReport

__all__ = ["StudyOutcome", "run_study"]


def _silent(*_: object) -> None:
    """Drop a message."""


@contextmanager
def _no_progress(label: str, total: int | None, unit: str) -> Iterator[Progress]:
    yield lambda count: None


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
    notify: Notify = _silent,
    progress: ShowProgress = _no_progress,
    on_step: Callable[[StepReport], None] = _silent,
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
        hashes = {one.task.name: _hash(self.folder, one) for one in self.tasks}
        self.folder.start(about | {"data": data.record(), "tasks": hashes})
        texts = [text for one in self.tasks for text in embedded_texts(one.data)]
        self.sample = sample_texts(texts, config.sample_texts)

    def run(self) -> StudyOutcome:
        """Run what is not done."""
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
        """Return the record of a run that was run now, also where it failed."""
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
        found = describe_training(model, run.train) | {"peak_memory_bytes": memory.bytes}
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
        """Look into a trained model and, once for all of its variants, its untrained base."""
        from embedder import Embedder

        embedder = loaded.encoder
        assert isinstance(embedder, Embedder)
        if not self.folder.read_base(run):
            plain = replace(run.train.model, pooling="mean", pooling_options=PoolingOptions())
            untrained = Embedder.from_spec(plain, device=self.device, notify=self.notify)
            found = analyse_model(untrained, self.sample)
            self.folder.write_base(run, {"correlation": found["correlation"]})
        return analyse_model(embedder, self.sample)


def _hash(folder: StudyFolder, loaded: LoadedTask) -> dict[str, str]:
    """Return the checksums of a task's files."""
    return Remembered(folder.results / ".cache" / "known").hash_files(task_files(loaded.task))
