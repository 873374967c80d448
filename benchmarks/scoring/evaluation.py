"""Scores one model on one task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.integrations.mteb_bench import run_mteb
from benchmarks.optional import read_versions
from benchmarks.scoring.bm25 import BM25_NAME
from benchmarks.scoring.cache import Cache, Searchable
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.costs import PeakMemory, measure_latency
from benchmarks.scoring.instructed import unlabel_model
from benchmarks.scoring.models import Bm25Model, LoadedModel
from benchmarks.scoring.remembered import digest
from benchmarks.scoring.results import QueryHits, Result
from benchmarks.scoring.searched import Worker
from benchmarks.tasks import TEXT_TASK_TYPES, RetrievalData, Scores, Task, TaskData
from benchmarks.tasks.datasets import BEIR_OWN_IDS, BEIR_PREFIX
from benchmarks.tasks.mteb import MtebData, MtebTask
from benchmarks.tasks.retrieval import PROTOCOL, score_retrieval
from embedder import cache_folder
from indexes.storage.manifest import millpond_version, now_utc
from retrieval import Fingerprint

_TEXT_BATCH = 32
_BACKEND_PACKAGES = {"faiss": ("faiss-cpu", "faiss-gpu"), "qdrant": ("qdrant-client",)}
_VERSIONS = {
    "retrieval": ("numpy",),
    "sts": ("numpy",),
    "classification": ("scikit-learn", "numpy"),
    "clustering": ("scikit-learn", "numpy"),
    "mteb": ("mteb", "datasets", "scikit-learn", "numpy"),
}


@dataclass(frozen=True)
class Run:
    """One model on one task, before it is scored.

    Attributes
    ----------
    hashes : SHA-256 of each file of the task, by role; of mteb's tasks, what names their data.
    instruction : that went into the model's query template; None for none.
    """

    model: str
    fingerprint: Fingerprint
    task: Task
    hashes: Mapping[str, Any]
    config: BenchConfig
    instruction: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """How it is scored; part of ``digest``."""
        return self._protocol() | ({"instruction": self.instruction} if self.instruction else {})

    def _protocol(self) -> dict[str, Any]:
        index = {"backend": self.config.backend, "factory": self.config.factory}
        if isinstance(self.task, MtebTask):
            protocol = {"protocol": "mteb", **read_versions("mteb")}
            searches = self.task.task_type == "retrieval" and self.model != BM25_NAME
            return protocol | (index if searches else {})
        if self.task.task_type != "retrieval":
            return dict(TEXT_TASK_TYPES[self.task.task_type].settings)
        settings: dict[str, Any] = {"protocol": PROTOCOL, "k": self.config.k}
        settings["depth"] = self.config.depth
        if self.task.path.resolve().name in BEIR_OWN_IDS:
            settings["own_ids"] = "dropped"
        if self.model == BM25_NAME:
            return settings
        return settings | index

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes the result again, as ``bench`` was asked for it."""
        config, path = self.config, self.task.path.absolute()
        if path.parent == cache_folder() / "beir":
            source = f"{BEIR_PREFIX}{path.name}"
        else:
            source = str(self.task.path if isinstance(self.task, MtebTask) else path)
        return {
            "model": unlabel_model(config, self.model),
            "task": source,
            "split": self.task.split,
            "k": config.k,
            "backend": config.backend,
            "factory": config.factory,
            "speed": config.speed,
            "device": config.device,
            "skip_bad": config.skip_bad,
            "trust_remote_code": config.trust_remote_code,
            "instruction": self.instruction,
        }

    def _origin(self) -> dict[str, str]:
        """Return what a result says of where its data come from."""
        if not isinstance(self.task, MtebTask):
            return {}
        told = {name: self.hashes[name] for name in ("revision", "split")}
        return told | {"subsets": ", ".join(self.hashes["subsets"])}

    @property
    def data_sha256(self) -> str:
        """The checksum of the data, which decides the scores along with model and settings."""
        return digest(dict(self.hashes))

    @property
    def digest(self) -> str:
        """Equal for runs that give the same scores."""
        return digest([self.fingerprint.digest, self.data_sha256, self.settings])

    def result(
        self,
        scores: Scores,
        data: TaskData,
        costs: Mapping[str, float],
        versions: Mapping[str, str],
        notes: Sequence[str] = (),
    ) -> Result:
        """Return the finished result."""
        is_mteb = isinstance(self.task, MtebTask)
        libraries = _VERSIONS["mteb" if is_mteb else self.task.task_type]
        return Result(
            model=self.model,
            task=self.task.name,
            task_type=self.task.task_type,
            main_metric=scores.main_metric,
            metrics=scores.metrics,
            item_ids=scores.item_ids,
            items=scores.items,
            draws=scores.draws,
            fingerprint=self.fingerprint,
            data={"sha256": self.data_sha256, **data.counts, **self._origin()},
            settings=self.settings,
            run_digest=self.digest,
            costs=costs,
            versions={"millpond": millpond_version(), **read_versions(*libraries), **versions},
            notes=[*data.notes, *scores.notes, *notes],
            created=now_utc(),
            recipe=self.recipe,
        )


def evaluate(
    run: Run, model: LoadedModel | Bm25Model, data: TaskData, cache: Cache
) -> tuple[Result, list[QueryHits] | None]:
    """Return the result of a model on a task, with the hits where it is retrieval.

    Raises
    ------
    MillpondError : as loading, embedding and indexing.
    """
    worker = Worker(model, run.config, cache)
    started = time.perf_counter()
    hits: list[QueryHits] | None = None
    with PeakMemory(model.device) as memory:
        if isinstance(data, RetrievalData):
            scores, hits = _retrieve(run, data, worker)
        elif isinstance(data, MtebData):
            scores, hits = run_mteb(data, worker)
        else:
            scores = TEXT_TASK_TYPES[run.task.task_type].score(data, worker.embed)
    bill = worker.bill
    costs = bill.costs(time.perf_counter() - started, memory.bytes) | dict(model.costs)
    versions = dict(model.versions)
    if worker.searched:
        costs |= _measure_searches(worker)
        if isinstance(model, LoadedModel):
            versions |= read_versions(*_BACKEND_PACKAGES.get(run.config.backend, ()))
    notes = [*bill.notes, *(note for corpus in worker.searched for note in corpus.notes)]
    return run.result(scores, data, costs, versions, notes), hits


def _retrieve(run: Run, data: RetrievalData, worker: Worker) -> tuple[Scores, list[QueryHits]]:
    documents, depth = data.read_documents(), run.config.depth
    corpus = worker.index(Searchable(documents, data.documents, run.hashes["corpus"], data.queries))
    rankings = corpus.many.search_many(
        data.queries, depth + 1, with_text=True, batch=_TEXT_BATCH, **corpus.choices
    )
    return score_retrieval(data, rankings, run.config.k, depth)


def _measure_searches(worker: Worker) -> dict[str, float]:
    """Return how long single queries take, and the size of what is searched."""
    corpus, k = worker.searched[-1], worker.config.k
    texts = [query.text for query in corpus.queries]
    search, choices = corpus.single.search, corpus.choices
    costs = measure_latency(lambda text: search(text, k, **choices), texts)
    return {**costs, "index_bytes": float(sum(one.bytes for one in worker.searched))}
