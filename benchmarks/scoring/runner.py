"""Scores every model on every task, and keeps each result as soon as it is there."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.scoring.bm25 import BM25_NAME, bm25_fingerprint
from benchmarks.scoring.cache import Cache, ShowProgress, show_nothing
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.evaluation import Run, evaluate
from benchmarks.scoring.instructed import Instructed, label_model
from benchmarks.scoring.models import (
    Bm25Model,
    Load,
    LoadedModel,
    check_model_name,
    load_model,
)
from benchmarks.scoring.remembered import Remembered, digest
from benchmarks.scoring.results import BEIR_PARTS, Result, read_result, result_path, write_result
from benchmarks.scoring.sharing import find_sharers, load_sharer
from benchmarks.scoring.systems import System, parse_system
from benchmarks.tasks import Task, TaskData, find_tasks, identify_task, load_task
from retrieval import Fingerprint
from retrieval.errors import FailureError, MillpondError, StorageError, UsageError, count_noun
from retrieval.protocols import Notify, silent

CACHE_NAME = ".cache"


@dataclass(frozen=True)
class Failure:
    """A run that could not be scored; ``task`` is "" where the model could not be loaded."""

    model: str
    task: str
    error: Exception

    def __str__(self) -> str:
        where = f"{self.model} on {self.task}" if self.task else self.model
        text = str(self.error) or type(self.error).__name__
        kind = "" if isinstance(self.error, MillpondError) else f"{type(self.error).__name__}: "
        return f"{where}: {kind}{text}"


def run_benchmark(
    config: BenchConfig,
    *,
    notify: Notify = silent,
    progress: ShowProgress = show_nothing,
    on_failure: Callable[[Failure], None] | None = None,
    load: Load = load_model,
) -> list[Result]:
    """Return the result of every model on every task, models first, in the order typed.

    One model on one task is a run. All data are read and checked before a model is loaded. If an
    earlier run had the same model, data and settings, its result is read back, not computed; if
    that holds for all runs of a model, it is not even loaded. A run that fails does not stop the
    others.

    Parameters
    ----------
    notify : receives one line for each slow or notable step.
    progress : shows how far a long step is.
    on_failure : receives each run that failed; without it a FailureError names them at the end.
    load : makes a model from its name; every name but "bm25" goes there. One other than the
        default chooses its own speed.

    Raises
    ------
    UsageError : a model or a task is unknown, or a record of its data is bad.
    DownloadError : a data set cannot be fetched.
    StorageError : the results folder cannot be written.
    FailureError : runs failed, and there is no ``on_failure``.
    """
    failures: list[Failure] = []
    results = _Benchmark(config, notify, progress, load, on_failure or failures.append).results()
    if failures:
        raise FailureError("; ".join(str(failure) for failure in failures))
    return results


class _Benchmark:
    """The state of one ``run_benchmark``."""

    def __init__(
        self,
        config: BenchConfig,
        notify: Notify,
        progress: ShowProgress,
        load: Load,
        fail: Callable[[Failure], None],
    ) -> None:
        self._config = config
        self._notify = notify
        self._is_ours = load is load_model
        self._load = load
        if self._is_ours:
            trust = config.trust_remote_code
            self._load = partial(load_model, speed=config.speed, trust_remote_code=trust)
        self._fail = fail
        self._cache = Cache(config.out / CACHE_NAME, progress)
        self._remembered = Remembered(config.out / CACHE_NAME / "known")
        self._hashes: dict[str, Mapping[str, Any]] = {}
        self._data: dict[str, TaskData] = {}
        self._ready: dict[str, LoadedModel] = {}
        self._instructed = Instructed(config, notify)
        self._systems = {model: parse_system(model) for model in config.models}

    def results(self) -> list[Result]:
        """Compute every missing result and return all of them."""
        tasks = find_tasks(self._config.tasks, self._config.split, self._notify)
        if not any(self._fitting(model, tasks) for model in self._config.models):
            task_types = ", ".join(dict.fromkeys(task.task_type for task in tasks))
            raise UsageError(
                f"{' and '.join(self._config.models)} can only retrieve, and no task here is "
                f"retrieval but {task_types}. Name a BEIR folder, or another model."
            )
        if self._config.instructions is not None and not self._is_ours:
            raise UsageError("Instructions need models that are loaded by name; leave load out.")
        self._instructed.check(tasks)
        _make_folder(self._config.out)
        for task in tasks:
            self._hashes[task.name] = identify_task(task, self._remembered.hash_files)
        known = {model: self._known(model) for model in self._config.models}
        for model, fingerprint in known.items():
            if fingerprint is None and self._is_ours:
                check_model_name(self._systems[model].model)
            for task in self._fitting(model, tasks):
                if self._finished(model, fingerprint, task) is None:
                    self._read(task)
        results: list[Result] = []
        for model, fingerprint in known.items():
            own = list(self._score(model, fingerprint, self._fitting(model, tasks)))
            names = [task.name for task in self._fitting(model, tasks)]
            whole = list(combine_parts(own, names))
            for result in whole:
                if result not in own:
                    write_result(self._config.out, result)
            results += whole
        return results

    def _known(self, model: str) -> Fingerprint | None:
        """Return the model's fingerprint, None if it is unknown until the model is loaded."""
        if model == BM25_NAME:
            return bm25_fingerprint()
        if self._config.speed != "exact":  # what is remembered is of exact models
            return None
        return self._remembered.find_fingerprint(model)

    def _fitting(self, model: str, tasks: Sequence[Task]) -> list[Task]:
        """Return the tasks that this model can do."""
        if not self._systems[model].only_retrieves:
            return list(tasks)
        return [task for task in tasks if task.task_type == "retrieval"]

    def _run(self, model: str, fingerprint: Fingerprint, task: Task) -> Run:
        """Return the run of a model that has this fingerprint by itself."""
        return Run(
            label_model(self._config, model),
            self._instructed.fingerprint(model, fingerprint, task),
            task,
            self._hashes[task.name],
            self._config,
            self._instructed.find(model, task),
        )

    def _finished(self, model: str, fingerprint: Fingerprint | None, task: Task) -> Result | None:
        """Return the finished result, None if it must be computed."""
        if fingerprint is None:
            return None
        try:
            result = read_result(
                result_path(self._config.out, label_model(self._config, model), task.name)
            )
        except MillpondError:  # absent, damaged or of an older format: all are computed again
            return None
        return result if result.run_digest == self._run(model, fingerprint, task).digest else None

    def _read(self, task: Task) -> TaskData:
        """Return the task's data, read once in a run."""
        if task.name not in self._data:
            self._data[task.name] = load_task(task, self._config.skip_bad)
        return self._data[task.name]

    def _score(
        self, model: str, fingerprint: Fingerprint | None, tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Yield the results of one model, which is loaded only if one is missing."""
        loaded: LoadedModel | Bm25Model | None = None
        if self._systems[model].only_retrieves and len(tasks) < len(self._hashes):
            left_out = [name for name in self._hashes if name not in {t.name for t in tasks}]
            self._notify(f"Passed over for {model}, which only retrieves: {', '.join(left_out)}.")
        for task in tasks:
            result = self._finished(model, fingerprint, task)
            if result is None and loaded is None:
                loaded = self._load_model(model)
                if loaded is None:
                    return
                fingerprint = loaded.fingerprint
                result = self._finished(model, fingerprint, task)
            if result is None and loaded is not None:
                if isinstance(loaded, LoadedModel):
                    loaded = replace(loaded, sharers=self._waiting(model, task))
                run = self._run(model, loaded.fingerprint, task)
                result = self._compute(run, self._instructed.instruct(model, loaded, task))
            if result is not None:
                yield result
        if loaded is not None:
            del loaded
            release_memory()

    def _load_model(self, model: str) -> LoadedModel | Bm25Model | None:
        if model == BM25_NAME:
            return Bm25Model()
        try:
            loaded = self._ready.pop(model, None)
            if loaded is None:
                self._ready.clear()
                loaded = self._load_system(self._systems[model])
                self._ready_sharers(model, loaded)
        except (MillpondError, MemoryError, RuntimeError, OSError) as error:
            self._fail(Failure(model, "", error))
            return None
        self._remembered.keep_model(model, loaded)
        return loaded

    def _load_system(self, system: System) -> LoadedModel:
        config = self._config
        loaded = self._load(system.model, config.device, self._notify)
        trust = config.trust_remote_code
        return system.complete(loaded, config.device, self._notify, trust_remote_code=trust)

    @cached_property
    def _sharers(self) -> dict[str, list[str]]:
        """Who shares a forward pass with whom; found late, since it imports torch."""
        alone = not self._is_ours or self._config.instructions is not None
        if alone:
            return {}
        return find_sharers([name for name, one in self._systems.items() if one.model == name])

    def _ready_sharers(self, model: str, loaded: LoadedModel) -> None:
        """Build the later models that can share a forward pass with a loaded one."""
        names = list(self._config.models)
        later = set(names[names.index(model) + 1 :])
        for name in self._sharers.get(model, ()):
            if name in later:
                with suppress(MillpondError):  # told when it is that model's turn
                    self._ready[name] = load_sharer(name, loaded)
        if self._ready:
            self._notify(f"Embedded in the same pass: {', '.join(self._ready)}")

    def _waiting(self, model: str, task: Task) -> list[LoadedModel]:
        """Return the models whose vectors of this task are made in the same pass."""
        return [
            self._ready[name]
            for name in self._sharers.get(model, ())
            if name in self._ready
            and self._finished(name, self._ready[name].fingerprint, task) is None
        ]

    def _compute(self, run: Run, model: LoadedModel | Bm25Model) -> Result | None:
        """Compute and write a result and return it, None if that failed."""
        self._notify(f"Scoring {run.model} on {run.task.name}")
        try:
            result, hits = evaluate(run, model, self._read(run.task), self._cache)
            write_result(self._config.out, result, hits)
        except (MillpondError, MemoryError, RuntimeError, OSError) as error:
            self._fail(Failure(run.model, run.task.name, error))
            return None
        return result


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: the results folder cannot be made ({error.strerror}). Name another --out."
        ) from error


def release_memory() -> None:
    """Free the memory of the last model before the next one is loaded."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


_SUMMED = ("seconds", "index_bytes")


def combine_parts(results: Sequence[Result], parts: Sequence[str]) -> Iterator[Result]:
    """Yield the results, those of a set's parts replaced by the mean of the parts.

    Each part weighs the same, as BEIR and mteb average CQADupStack's twelve, and the parts are the
    items: a test of the mean is one over parts. A set of which a part failed is left out.

    Parameters
    ----------
    results : of one model.
    parts : the names of all parts, SET/PART, that the model had to do.
    """
    sets = {name: [one for one in parts if one.startswith(f"{name}/")] for name in BEIR_PARTS}
    for result in results:
        if result.task.partition("/")[0] not in BEIR_PARTS or "/" not in result.task:
            yield result
    for name, wanted in sets.items():
        found = [one for one in results if one.task in wanted]
        if wanted and len(found) == len(wanted):
            yield _mean(name, found)


def _mean(name: str, found: Sequence[Result]) -> Result:
    first = found[0]
    labels = [one.task.partition("/")[2] for one in found]
    shared = [name for name in first.metrics if all(name in one.metrics for one in found)]
    items = {metric: [one.metrics[metric] for one in found] for metric in shared}
    counts = {
        key: sum(one.data[key] for one in found)
        for key, value in first.data.items()
        if isinstance(value, int)
    }
    costs = {key: value for key, value in first.costs.items() if key == "parameters"}
    costs |= {key: sum(one.costs.get(key, 0.0) for one in found) for key in _SUMMED}
    notes = [f"{label}: {note}" for label, one in zip(labels, found, strict=True)
             for note in one.notes]  # fmt: skip
    how = f"The mean of {count_noun(len(found), 'part')}, each weighing the same; tested by parts."
    whole = str(first.recipe.get("task", "")).rpartition("/")[0]
    return replace(
        first,
        task=name,
        metrics={metric: fmean(row) for metric, row in items.items()},
        item_ids=labels,
        items=items,
        data={"sha256": digest([one.data["sha256"] for one in found]), **counts},
        run_digest=digest([one.run_digest for one in found]),
        settings={**first.settings, "parts": len(found)},
        costs=costs,
        notes=[how, *notes],
        recipe={**first.recipe, "task": whole},
    )
