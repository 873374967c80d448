"""Scores one model on one task: a run of the table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from benchmarks.scoring.bm25 import BM25_NAME, Bm25Index
from benchmarks.scoring.cache import Cache, CachedIndex, IndexRequest, ShowProgress, Work
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.costs import PeakMemory, measure_latency
from benchmarks.scoring.models import LoadedModel
from benchmarks.scoring.optional import read_versions
from benchmarks.scoring.remembered import digest
from benchmarks.scoring.results import QueryHits, Result
from benchmarks.tasks import TEXT_TASK_TYPES, RetrievalData, Scores, Task, TaskData
from benchmarks.tasks.retrieval import HITS_KEPT, PROTOCOL, score_retrieval
from indexes.storage.manifest import millpond_version, now_utc
from retrieval import Fingerprint, Retriever, Vectors

__all__ = ["Run", "evaluate_bm25", "evaluate_model"]

_TEXT_BATCH = 32
_BACKEND_PACKAGES = {"faiss": ("faiss-cpu", "faiss-gpu"), "qdrant": ("qdrant-client",)}
_VERSIONS = {
    "retrieval": ("pytrec_eval-terrier", "numpy"),
    "sts": ("scipy", "numpy"),
    "classification": ("scikit-learn", "numpy"),
    "clustering": ("scikit-learn", "numpy"),
}


@dataclass(frozen=True)
class Run:
    """One model on one task, before it is scored.

    Attributes
    ----------
    hashes : SHA-256 of each file of the task, by role.
    """

    model: str
    fingerprint: Fingerprint
    task: Task
    hashes: Mapping[str, str]
    config: BenchConfig

    @property
    def settings(self) -> dict[str, Any]:
        """How it is scored; part of ``digest``."""
        if self.task.task_type != "retrieval":
            return dict(TEXT_TASK_TYPES[self.task.task_type].settings)
        settings = {"protocol": PROTOCOL, "k": self.config.k, "depth": self.config.depth}
        if self.model == BM25_NAME:
            return settings
        return settings | {"backend": self.config.backend, "factory": self.config.factory}

    @property
    def data_sha256(self) -> str:
        """Of everything that decides the scores but the model and the settings."""
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
        return Result(
            model=self.model,
            task=self.task.name,
            task_type=self.task.task_type,
            main_metric=scores.main_metric,
            metrics=scores.metrics,
            item_ids=scores.item_ids,
            items=scores.items,
            fingerprint=self.fingerprint,
            data={"sha256": self.data_sha256, **data.counts},
            settings=self.settings,
            run_digest=self.digest,
            costs=costs,
            versions={"millpond": millpond_version()}
            | read_versions(*_VERSIONS[self.task.task_type])
            | dict(versions),
            notes=[*data.notes, *scores.notes, *notes],
            created=now_utc(),
        )


class _Known:
    """An encoder whose query vectors are there already, one for each text."""

    def __init__(self, model: LoadedModel, texts: Sequence[str], vectors: Vectors) -> None:
        self.dimension = model.encoder.dimension
        self.fingerprint = model.encoder.fingerprint
        self.encode_documents = model.encoder.encode_documents
        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[[self._rows[text] for text in texts]]


class _Bill:
    """Adds up what a run cost, with what earlier runs paid for the parts that were kept."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._works: list[tuple[Work | None, bool]] = []

    def add(self, work: Work | None, is_new: bool) -> None:
        self._works.append((work, is_new))

    def costs(self, seconds: float, peak_memory_bytes: int) -> dict[str, float]:
        """Return the costs of a run that took so long now."""
        earlier = [work for work, is_new in self._works if work is not None and not is_new]
        known = [work for work, _ in self._works if work is not None]
        waited = sum(work.waited_seconds for work, is_new in self._works if work and is_new)
        costs = {
            "seconds": seconds + waited + sum(work.seconds for work in earlier),
            "peak_memory_bytes": float(
                max([peak_memory_bytes, *(work.peak_memory_bytes for work in known)])
            ),
            **self._model.costs,
        }
        tokens = [work.tokens for work, _ in self._works if work is not None]
        spent = sum(work.encode_seconds for work in known)
        if len(known) == len(self._works) and None not in tokens and spent > 0:
            costs["tokens_per_second"] = sum(cast(list[int], tokens)) / spent
        return costs

    @property
    def notes(self) -> list[str]:
        """Say so where a cost is not known."""
        if all(work is not None for work, _ in self._works):
            return []
        return ["A run was killed before it noted what the index cost; the time is incomplete."]


def evaluate_model(
    run: Run, model: LoadedModel, data: TaskData, cache: Cache
) -> tuple[Result, list[QueryHits] | None]:
    """Return the result of an embedding model on a task, with the hits where it is retrieval.

    Raises
    ------
    MillpondError : as loading, embedding and indexing.
    """
    bill = _Bill(model)
    started = time.perf_counter()
    hits: list[QueryHits] | None = None
    index: CachedIndex | None = None

    def embed(texts: Sequence[str]) -> Vectors:
        vectors, work, is_new = cache.embed(model, texts)
        bill.add(work, is_new)
        return vectors

    with PeakMemory(model.device) as memory:
        if isinstance(data, RetrievalData):
            scores, hits, index = _retrieve(run, model, data, cache, bill)
        else:
            scores = TEXT_TASK_TYPES[run.task.task_type].score(data, embed)
    costs = bill.costs(time.perf_counter() - started, memory.bytes)
    versions = read_versions("torch", "transformers") | dict(model.versions)
    if isinstance(data, RetrievalData) and index is not None:
        alone = Retriever(model.encoder, index.index)
        texts = [query.text for query in data.queries]
        costs |= measure_latency(lambda text: alone.search(text, run.config.k), texts)
        costs["index_bytes"] = float(index.bytes)
        versions |= read_versions(*_BACKEND_PACKAGES.get(run.config.backend, ()))
    return run.result(scores, data, costs, versions, bill.notes), hits


def _retrieve(
    run: Run, model: LoadedModel, data: RetrievalData, cache: Cache, bill: _Bill
) -> tuple[Scores, list[QueryHits], CachedIndex]:
    config = run.config
    request = IndexRequest(
        run.hashes["corpus"],
        data.read_documents(),
        data.documents,
        config.backend,
        config.factory,
    )
    made = cache.index(model, request)
    bill.add(made.work, made.is_new)
    texts = list(dict.fromkeys(query.text for query in data.queries))
    vectors, work, is_new = cache.embed(model, texts)
    bill.add(work, is_new)
    rankings = Retriever(_Known(model, texts, vectors), made.index).search_many(
        data.queries, config.depth + 1, with_text=True, batch=_TEXT_BATCH
    )
    scores, hits = score_retrieval(data, rankings, config.k, config.depth)
    return scores, hits, made


def evaluate_bm25(
    run: Run, data: RetrievalData, progress: ShowProgress
) -> tuple[Result, list[QueryHits]]:
    """Return the result of BM25 on a retrieval task.

    Raises
    ------
    MillpondError : a library is missing, or the corpus cannot be read.
    """
    started = time.perf_counter()
    with PeakMemory() as memory:
        with progress("Indexing", data.documents, "documents") as advance:
            index = Bm25Index(data.read_documents(), advance)
        rankings = index.search_many(
            data.queries, run.config.depth + 1, data.read_documents(), texts=HITS_KEPT + 1
        )
        scores, hits = score_retrieval(data, rankings, run.config.k, run.config.depth)
    costs = {
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": float(memory.bytes),
        "index_bytes": float(index.bytes),
    }
    texts = [query.text for query in data.queries]
    costs |= measure_latency(lambda text: index.search(text, run.config.k), texts)
    return run.result(scores, data, costs, read_versions("bm25s")), hits
