"""Corpora that can be searched by a model, and what all that embedding cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from benchmarks.scoring.bm25 import Bm25Retriever
from benchmarks.scoring.cache import Cache, Searchable, Work
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.models import Bm25Model, LoadedModel
from retrieval import Corpus, Query, Vectors
from retrieval.errors import count_noun
from retrieval.retriever import Retriever
from retrieval.types import Blend

if TYPE_CHECKING:
    from embedder import Embedder
    from embedder.models.sentence_transformers import SentenceTransformersEncoder
    from embedder.splitting import CountedDocuments, Coverage


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
class Searched:
    """A corpus that a model can search.

    Attributes
    ----------
    queries : that are asked of it.
    many : answers them.
    single : embeds and answers one text at a time.
    bytes : of the index.
    notes : a sentence on the documents that the model reads in part, if there are any.
    choices : the mode of its searches, and how both arms are fused.
    """

    queries: Sequence[Query]
    many: Retriever | Bm25Retriever
    single: Retriever | Bm25Retriever
    bytes: int
    notes: Sequence[str] = ()
    choices: Mapping[str, Any] = field(default_factory=dict)


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


class Worker:
    """A model that embeds and searches for one run, with everything put on one bill.

    Parameters
    ----------
    config : which index, on which device.
    cache : where vectors and indexes are kept.
    """

    def __init__(self, model: LoadedModel | Bm25Model, config: BenchConfig, cache: Cache) -> None:
        self.model = model
        self.config = config
        self.bill = _Bill()
        self.searched: list[Searched] = []
        self._cache = cache

    def embed(self, texts: Sequence[str], side: str = "query") -> Vectors:
        """Return float32 (N, D), with the prompt of "query" or of "document".

        Raises
        ------
        MillpondError : as ``Cache.embed``.
        """
        assert isinstance(self.model, LoadedModel)
        vectors, work, is_new = self._cache.embed(self.model, texts, side)
        self.bill.add(work, is_new)
        return vectors

    def index(self, corpus: Searchable) -> Searched:
        """Return a corpus, ready to be searched.

        Raises
        ------
        MillpondError : as ``Cache.index`` and ``Bm25Retriever``.
        """
        model, config = self.model, self.config
        if isinstance(model, Bm25Model):
            with self._cache.progress("Indexing", corpus.count, "documents") as advance:
                bm25 = Bm25Retriever(corpus.documents, advance)
            return self._keep(Searched(corpus.queries, bm25, bm25, bm25.bytes))
        counted = replace(corpus, documents=_counted(corpus.documents, model))
        made = self._cache.index(model, counted, config.backend, config.factory)
        self.bill.add(made.work, made.is_new)
        texts = list(dict.fromkeys(query.text for query in corpus.queries))
        known = _Known(model, texts, self.embed(texts))
        return self._keep(
            Searched(
                corpus.queries,
                Retriever(known, made.index, reranker=model.reranker),
                Retriever(model.encoder, made.index, reranker=model.reranker),
                made.bytes,
                describe_cut(made.index.manifest.cut, "document"),
                asdict(model.blend or Blend("dense")),
            )
        )

    def _keep(self, searched: Searched) -> Searched:
        self.searched.append(searched)
        return searched

    def count_coverage(self) -> Coverage | None:
        """Return what counts texts that the model reads in part, None where nothing can tell."""
        counting = _counting(self.model)
        if counting is None:
            return None
        from embedder.splitting import Coverage

        return Coverage(counting)


def _counted(documents: Corpus | CountedDocuments, model: LoadedModel) -> Corpus | CountedDocuments:
    """Return the documents, counted as they are read if the model's tokens can be counted."""
    counting = _counting(model)
    if counting is None:
        return documents
    from embedder.splitting import CountedDocuments

    return CountedDocuments(cast(Corpus, documents), counting)


def _counting(model: LoadedModel | Bm25Model) -> Embedder | SentenceTransformersEncoder | None:
    """Return the encoder if its tokens can be counted."""
    if isinstance(model, Bm25Model) or not type(model.encoder).__module__.startswith("embedder."):
        return None  # torch stays out
    from embedder.embedder import Embedder
    from embedder.models.sentence_transformers import SentenceTransformersEncoder

    assert isinstance(model.encoder, Embedder | SentenceTransformersEncoder)
    return model.encoder


def describe_cut(cut: Mapping[str, int] | None, what: str) -> list[str]:
    """Return a sentence on texts that were read in part, if there are any; see ``Coverage``."""
    if not cut or not cut["cut"]:
        return []
    return [
        f"{count_noun(cut['cut'], what)} of {cut['texts']:,} "
        f"{'is' if cut['cut'] == 1 else 'are'} longer than the model reads: "
        f"{cut['unread'] / cut['tokens']:.1%} of all tokens were not read."
    ]
