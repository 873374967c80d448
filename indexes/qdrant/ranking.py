"""Candidates of an engine become hits: scores that do not depend on it, ties settled by id."""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from indexes.documents import DocumentStore
from indexes.shards import Shards
from retrieval import Document, Hit, Vectors

__all__ = ["Candidates", "Found", "StoredVectors", "make_hits", "rank"]

EXTRA_CANDIDATES = 16

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Found: TypeAlias = tuple[Scores, Rows]


class Candidates(Protocol):
    """Asks an engine."""

    def __call__(self, queries: Vectors, wanted: int, *, exact: bool) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows, best first."""
        ...


class StoredVectors(Shards):
    """The shards of an index, looked up by row."""

    def rows(self, rows: Rows) -> Vectors:
        """Return float32 (n, D), one vector for each row number."""
        found = np.empty((len(rows), self.dimension), dtype=np.float32)
        shard_of = np.searchsorted(self._ends, rows, side="right")
        for shard in np.unique(shard_of):
            chosen = shard_of == shard
            array = self._arrays[shard]
            found[chosen] = array[rows[chosen] - (self._ends[shard] - len(array))]
        return found


def rank(
    candidates: Candidates, stored: StoredVectors, queries: Vectors, k: int, *, exact: bool
) -> list[Found]:
    """Return, for each query, scores and rows of the k best and all that tie with the kth.

    Scores are computed again from the vectors on disk, in float64, and rounded to float32: they
    are those of an exact FAISS index, whatever the engine stores or rounds. An exact search
    asks for a few more than k, and for twice as many for as long as what lies beyond could
    still tie; an approximate one settles ties among what it was given.
    """
    total = len(stored)
    found: dict[int, Found] = {}
    pending = list(range(len(queries)))
    wanted = min(k + EXTRA_CANDIDATES, total)
    while pending:
        answers = candidates(queries[pending], wanted, exact=exact)
        unsettled = []
        for query, (scores, rows) in zip(pending, answers, strict=True):
            precise, slack = _rescore(queries[query], stored.rows(rows))
            threshold = np.sort(precise)[-k] if len(precise) >= k else -np.inf
            more = exact and len(rows) == wanted < total
            if more and scores[-1] + slack >= threshold:
                unsettled.append(query)
                continue
            kept = precise >= threshold
            found[query] = (precise[kept], rows[kept])
        pending = unsettled
        wanted = min(2 * wanted, total)
    return [found[query] for query in range(len(queries))]


def make_hits(
    found: list[Found], documents: DocumentStore, k: int, *, with_text: bool
) -> list[list[Hit]]:
    """Return at most k hits for each query, by falling score, then by document id."""
    ids = documents.ids(np.concatenate([rows for _, rows in found]))
    best = []
    for scores, rows in found:
        triples = [
            (-score, ids[row], row)
            for score, row in zip(scores.tolist(), rows.tolist(), strict=True)
        ]
        best.append(sorted(triples)[:k])
    texts: dict[int, Document] = {}
    if with_text:
        chosen = [row for triples in best for _, _, row in triples]
        texts = documents.documents(np.array(chosen, dtype=np.int64))
    return [
        [
            _hit(number, doc_id, -negative, texts.get(row))
            for number, (negative, doc_id, row) in enumerate(triples, start=1)
        ]
        for triples in best
    ]


def _rescore(query: Vectors, vectors: Vectors) -> tuple[Scores, float]:
    """Return inner products, and how far an engine that multiplies in float32 may be off."""
    wide = query.astype(np.float64)
    stored = vectors.astype(np.float64)
    longest = math.sqrt(float((stored * stored).sum(axis=1).max(initial=0.0)))
    length = math.sqrt(float((wide * wide).sum()))
    slack = 4 * math.sqrt(max(1, len(query))) * 2.0**-24 * length * longest
    return (stored * wide).sum(axis=1).astype(np.float32), slack


def _hit(number: int, doc_id: str, score: float, document: Document | None) -> Hit:
    score += 0.0  # -0.0 becomes 0.0
    if document is None:
        return Hit(number, doc_id, score)
    return Hit(number, doc_id, score, document.title, document.text, document.metadata)
