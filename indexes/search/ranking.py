"""Candidates of an engine become hits: scores that do not depend on it, ties settled by id."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np

from indexes.search.selection import Selection
from indexes.storage.documents import DocumentStore
from indexes.storage.vectors import Shards
from retrieval import Document, Hit, Vectors
from retrieval.passages import split_passage_id
from retrieval.protocols import Floats, Rows

__all__ = ["Candidates", "ExactScan", "Found", "make_hits", "rank"]

EXTRA_CANDIDATES = 16

Found: TypeAlias = tuple[Floats, Rows]


class Candidates(Protocol):
    """Asks an engine for the rows that may be hits."""

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows of the selection, best first.

        ``exact`` asks for the true best ones, whatever the engine would rather do.
        """
        ...


def rank(
    candidates: Candidates,
    stored: Shards,
    queries: Vectors,
    k: int,
    *,
    exact: bool,
    selection: Selection,
) -> list[Found]:
    """Return, per query, scores and rows of the k best and of all that tie with the kth.

    Floats are computed again from the vectors on disk, in float64, and rounded to float32: they
    do not depend on the engine, on what it stores or rounds, or on the batch. An exact search
    asks for a few more than k, and for twice as many for as long as what lies beyond could
    still tie; an approximate one settles ties among what it was given.
    """
    total = selection.count
    found: dict[int, Found] = {}
    pending = list(range(len(queries)))
    wanted = min(k + EXTRA_CANDIDATES, total)
    while pending:
        answers = candidates(queries[pending], wanted, exact=exact, selection=selection)
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


class ExactScan:
    """Compares every selected vector, without any engine; implements ``Candidates``.

    Reads each vector once, in float32, a block at a time.
    """

    def __init__(self, stored: Shards) -> None:
        self._stored = stored

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, the ``wanted`` best scores and rows of the selection."""
        best: list[Found] = [(np.zeros(0, np.float32), np.zeros(0, np.int64)) for _ in queries]
        for rows, block in _selected_blocks(self._stored, selection):
            if not len(rows):
                continue
            products = queries @ block.T
            first = max(0, products.shape[1] - wanted)
            nearest = np.argpartition(products, first, axis=1)[:, first:]
            for query, places in enumerate(nearest):
                scores = np.concatenate([best[query][0], products[query, places]])
                found = np.concatenate([best[query][1], rows[places]])
                order = np.argsort(-scores, kind="stable")[:wanted]
                best[query] = (scores[order], found[order])
        return best


def _selected_blocks(stored: Shards, selection: Selection) -> Iterator[tuple[Rows, Vectors]]:
    mask, start = selection.mask, 0
    if mask is not None and selection.count < len(stored) // 16:
        rows = np.flatnonzero(mask)
        step = max(1, stored.block_rows)
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            yield part, stored.rows(part)
        return
    for block in stored:
        stop = start + len(block)
        rows = np.arange(start, stop, dtype=np.int64)
        if mask is None:
            yield rows, block
        else:
            chosen = mask[start:stop]
            yield rows[chosen], block[chosen]
        start = stop


def make_hits(
    found: list[Found],
    documents: DocumentStore,
    k: int,
    *,
    with_text: bool,
    passages: bool = False,
) -> list[list[Hit]]:
    """Return at most k hits for each query, by falling score, then by document id.

    Where rows are ``passages``, a document is hit once, by its best one, whose text it shows.
    """
    ids = documents.ids(np.concatenate([rows for _, rows in found]))
    best = [_order(scores, rows, ids, k, passages) for scores, rows in found]
    texts: dict[int, Document] = {}
    if with_text:
        chosen = [row for hits in best for _, _, row in hits]
        texts = documents.documents(np.array(chosen, dtype=np.int64))
    return [
        [
            _hit(number, doc_id, score, texts.get(row))
            for number, (score, doc_id, row) in enumerate(hits, start=1)
        ]
        for hits in best
    ]


def _order(
    scores: Floats, rows: Rows, ids: dict[int, str], k: int, passages: bool
) -> list[tuple[float, str, int]]:
    """Return (score, document id, row) of the k best."""
    ordered = []
    for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
        name, number = split_passage_id(ids[row]) if passages else (ids[row], 0)
        ordered.append((-score, name, number, row))
    best: dict[str, tuple[float, int]] = {}
    for negative, name, _, row in sorted(ordered):
        if name not in best:
            best[name] = (-negative, row)
            if len(best) == k:
                break
    return [(score, name, row) for name, (score, row) in best.items()]


def _rescore(query: Vectors, vectors: Vectors) -> tuple[Floats, float]:
    """Return inner products, and how far an engine that multiplies in float32 may be off.

    Engines multiply in blocks, so that the last digit of a score depends on where a vector lies
    in the file. Products of two float32 are exact in float64.
    """
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
