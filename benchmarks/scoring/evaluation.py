"""Scores one model on one task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.optional import read_versions
from benchmarks.scoring.bm25 import BM25_NAME, Bm25Retriever
from benchmarks.scoring.cache import Cache, IndexRequest, Work
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.costs import PeakMemory, measure_latency
from benchmarks.scoring.instructed import unlabel_model
from benchmarks.scoring.models import Bm25Model, LoadedModel
from benchmarks.scoring.remembered import digest
from benchmarks.scoring.results import QueryHits, Result
from benchmarks.tasks import TEXT_TASK_TYPES, RetrievalData, Scores, Task, TaskData
from benchmarks.tasks.datasets import BEIR_OWN_IDS, BEIR_PREFIX
from benchmarks.tasks.retrieval import PROTOCOL, score_retrieval
from benchmarks.tasks.task import Embed
from embedder import cache_folder
from indexes.storage.manifest import millpond_version, now_utc
from retrieval import Corpus, Fingerprint, Vectors
from retrieval.blend import Blend
from retrieval.plurals import count_noun
from retrieval.retriever import Retriever

if TYPE_CHECKING:
    from embedder.coverage import CountedDocuments

__all__ = ["Run", "evaluate"]

_TEXT_BATCH = 32
_BACKEND_PACKAGES = {"faiss": ("faiss-cpu", "faiss-gpu"), "qdrant": ("qdrant-client",)}
_VERSIONS = {
    "retrieval": ("numpy",),
    "sts": ("numpy",),
    "classification": ("scikit-learn", "numpy"),
    "clustering": ("scikit-learn", "numpy"),
}


@dataclass(frozen=True)
class Run:
    """One model on one task, before it is scored.

    Attributes
    ----------
    hashes : SHA-256 of each file of the task, by role.
    instruction : that went into the model's query template; None for none.
    """

    model: str
    fingerprint: Fingerprint
    task: Task
    hashes: Mapping[str, str]
    config: BenchConfig
    instruction: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """How it is scored; part of ``digest``."""
        return self._protocol() | ({"instruction": self.instruction} if self.instruction else {})

    def _protocol(self) -> dict[str, Any]:
        if self.task.task_type != "retrieval":
            return dict(TEXT_TASK_TYPES[self.task.task_type].settings)
        settings: dict[str, Any] = {"protocol": PROTOCOL, "k": self.config.k}
        settings["depth"] = self.config.depth
        if self.task.path.resolve().name in BEIR_OWN_IDS:
            settings["own_ids"] = "dropped"
        if self.model == BM25_NAME:
            return settings
        return settings | {"backend": self.config.backend, "factory": self.config.factory}

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes the result again, as ``bench`` was asked for it."""
        config, path = self.config, self.task.path.absolute()
        in_cache = path.parent == cache_folder() / "beir"
        return {
            "model": unlabel_model(config, self.model),
            "task": f"{BEIR_PREFIX}{path.name}" if in_cache else str(path),
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
            data={"sha256": self.data_sha256, **data.counts},
            settings=self.settings,
            run_digest=self.digest,
            costs=costs,
            versions={"millpond": millpond_version()}
            | read_versions(*_VERSIONS[self.task.task_type])
            | dict(versions),
            notes=[*data.notes, *scores.notes, *notes],
            created=now_utc(),
            recipe=self.recipe,
        )


class _Known:
    """An encoder whose query vectors have been computed already."""

    def __init__(self, model: LoadedModel, texts: Sequence[str], vectors: Vectors) -> None:
        self.dimension = model.encoder.dimension
        self.fingerprint = model.encoder.fingerprint
        self.encode_documents = model.encoder.encode_documents
        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[[self._rows[text] for text in texts]]


class _Bill:
    """Adds up the costs of a run, including what earlier runs paid for the parts they kept."""

    def __init__(self) -> None:
        self._works: list[tuple[Work | None, bool]] = []

    def add(self, work: Work | None, is_new: bool) -> None:
        self._works.append((work, is_new))

    def costs(self, seconds: float, peak_memory_bytes: int) -> dict[str, float]:
        """Return the costs, given the time and memory that this run took now."""
        known = [work for work, _ in self._works if work is not None]
        earlier = sum(work.seconds for work, is_new in self._works if work and not is_new)
        waited = sum(work.waited_seconds for work, is_new in self._works if work and is_new)
        peak = max([peak_memory_bytes, *(work.peak_memory_bytes for work in known)])
        costs = {"seconds": seconds + waited + earlier, "peak_memory_bytes": float(peak)}
        tokens = [work.tokens for work in known if work.tokens is not None]
        spent = sum(work.encode_seconds for work in known)
        if len(tokens) == len(self._works) and spent > 0:
            costs["tokens_per_second"] = sum(tokens) / spent
        return costs

    @property
    def notes(self) -> list[str]:
        """A sentence if a cost is unknown."""
        if all(work is not None for work, _ in self._works):
            return []
        return ["A run was killed before it noted what the index cost; the time is incomplete."]


@dataclass(frozen=True)
class _Corpus:
    """A corpus that can be searched.

    Attributes
    ----------
    many : answers the queries of the task.
    single : embeds and answers one text at a time.
    bytes : of the index.
    notes : a sentence on the documents that the model reads in part, if there are any.
    choices : the mode of its searches, and how both arms are fused.
    """

    many: Retriever | Bm25Retriever
    single: Retriever | Bm25Retriever
    bytes: int
    notes: Sequence[str] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)


def evaluate(
    run: Run, model: LoadedModel | Bm25Model, data: TaskData, cache: Cache
) -> tuple[Result, list[QueryHits] | None]:
    """Return the result of a model on a task, with the hits where it is retrieval.

    Raises
    ------
    MillpondError : as loading, embedding and indexing.
    """
    bill = _Bill()
    started = time.perf_counter()
    hits: list[QueryHits] | None = None
    corpus: _Corpus | None = None
    with PeakMemory(model.device) as memory:
        if isinstance(data, RetrievalData):
            corpus = _index(run, model, data, cache, bill)
            depth = run.config.depth
            rankings = corpus.many.search_many(
                data.queries, depth + 1, with_text=True, batch=_TEXT_BATCH, **corpus.choices
            )
            scores, hits = score_retrieval(data, rankings, run.config.k, depth)
        else:
            assert isinstance(model, LoadedModel)
            scores = TEXT_TASK_TYPES[run.task.task_type].score(data, _embedding(model, cache, bill))
    costs = bill.costs(time.perf_counter() - started, memory.bytes) | dict(model.costs)
    versions = dict(model.versions)
    if isinstance(data, RetrievalData) and corpus is not None:
        search, k = corpus.single.search, run.config.k
        texts = [query.text for query in data.queries]
        choices = corpus.choices
        costs |= measure_latency(lambda text: search(text, k, **choices), texts)
        costs["index_bytes"] = float(corpus.bytes)
        if isinstance(model, LoadedModel):
            versions |= read_versions(*_BACKEND_PACKAGES.get(run.config.backend, ()))
    notes = [*bill.notes, *(corpus.notes if corpus else ())]
    return run.result(scores, data, costs, versions, notes), hits


def _embedding(model: LoadedModel, cache: Cache, bill: _Bill) -> Embed:
    """Return what embeds texts and puts it on the bill."""

    def embed(texts: Sequence[str]) -> Vectors:
        vectors, work, is_new = cache.embed(model, texts)
        bill.add(work, is_new)
        return vectors

    return embed


def _index(
    run: Run, model: LoadedModel | Bm25Model, data: RetrievalData, cache: Cache, bill: _Bill
) -> _Corpus:
    """Return the task's corpus, ready to be searched by the model."""
    documents, config = data.read_documents(), run.config
    if isinstance(model, Bm25Model):
        with cache.progress("Indexing", data.documents, "documents") as advance:
            bm25 = Bm25Retriever(documents, advance)
        return _Corpus(bm25, bm25, bm25.bytes)
    request = IndexRequest(
        run.hashes["corpus"],
        _counted(documents, model),
        data.documents,
        config.backend,
        config.factory,
        lexical=model.blend is not None,
    )
    made = cache.index(model, request)
    bill.add(made.work, made.is_new)
    texts = list(dict.fromkeys(query.text for query in data.queries))
    known = _Known(model, texts, _embedding(model, cache, bill)(texts))
    return _Corpus(
        Retriever(known, made.index, reranker=model.reranker),
        Retriever(model.encoder, made.index, reranker=model.reranker),
        made.bytes,
        _describe_cut(made.index.manifest.cut),
        asdict(model.blend or Blend("dense")),
    )


def _counted(documents: Corpus, model: LoadedModel) -> Corpus | CountedDocuments:
    """Return the documents, counted as they are read if the model's tokens can be counted."""
    if not type(model.encoder).__module__.startswith("embedder."):  # torch stays out
        return documents
    from embedder.coverage import CountedDocuments
    from embedder.embedder import Embedder
    from embedder.models.sentence_transformers import SentenceTransformersEncoder

    assert isinstance(model.encoder, Embedder | SentenceTransformersEncoder)
    return CountedDocuments(documents, model.encoder)


def _describe_cut(cut: Mapping[str, int] | None) -> list[str]:
    if not cut or not cut["cut"]:
        return []
    return [
        f"{count_noun(cut['cut'], 'document')} of {cut['texts']:,} "
        f"{'is' if cut['cut'] == 1 else 'are'} longer than the model reads: "
        f"{cut['unread'] / cut['tokens']:.1%} of all tokens were not read."
    ]
