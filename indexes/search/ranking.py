"""Candidates of an engine become hits: scores that do not depend on it, ties settled by id."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from indexes.search.selection import Selection
from indexes.storage.documents import DocumentStore
from indexes.storage.vectors import Shards
from retrieval import Document, Hit, Vectors
from retrieval.passages import split_passage_id
from retrieval.protocols import Floats, Rows
from retrieval.scores import Doubles

__all__ = ["Candidates", "ExactScan", "Found", "make_hits", "rank"]

EXTRA_CANDIDATES = 16
RESCORED_TOGETHER = 512
"""Vectors that are multiplied at a time: with D=384 in float64, 1.5 MiB, which a cache holds."""

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
        asked = queries if len(pending) == len(queries) else queries[pending]
        answers = candidates(asked, wanted, exact=exact, selection=selection)
        unsettled = []
        for places, count in _group(answers):
            rows = np.stack([answers[place][1] for place in places])
            precise, slack = _rescore(asked[places], stored, rows)
            thresholds = np.full(len(places), -np.inf)
            if count >= k:
                thresholds = np.partition(precise, count - k, axis=1)[:, count - k]
            if exact and count == wanted < total:
                last = np.array([answers[place][0][-1] for place in places])
                open_ones = (last + slack() >= thresholds).tolist()
            else:
                open_ones = [False] * len(places)
            kept = precise >= thresholds[:, None]
            for number, place in enumerate(places):
                if open_ones[number]:
                    unsettled.append(pending[place])
                else:
                    chosen = kept[number]
                    found[pending[place]] = (precise[number][chosen], rows[number][chosen])
        pending = unsettled
        wanted = min(2 * wanted, total)
    return [found[query] for query in range(len(queries))]


def _group(answers: Sequence[Found]) -> Iterator[tuple[list[int], int]]:
    """Yield the numbers of a few queries that have as many candidates, and how many those are."""
    alike: dict[int, list[int]] = {}
    for number, (_, rows) in enumerate(answers):
        alike.setdefault(len(rows), []).append(number)
    for count, numbers in alike.items():
        step = max(1, RESCORED_TOGETHER // max(1, count))
        for start in range(0, len(numbers), step):
            yield numbers[start : start + step], count


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
    rows = np.concatenate([rows for _, rows in found]) if len(found) > 1 else found[0][1]
    # Ties apart, what was found is what is shown, and is read once.
    texts = documents.documents(rows) if with_text and len(rows) <= 2 * k * len(found) else None
    if texts is None:
        ids = documents.ids(rows)
    else:
        ids = {row: document.doc_id for row, document in texts.items()}
    order = _order_passages if passages else _order
    best = [order(scores, rows, ids, k) for scores, rows in found]
    if with_text and texts is None:
        chosen = [row for hits in best for _, _, row in hits]
        texts = documents.documents(np.array(chosen, dtype=np.int64))
    return [
        [
            _hit(number, doc_id, -negative, texts[row] if texts else None)
            for number, (negative, doc_id, row) in enumerate(hits, start=1)
        ]
        for hits in best
    ]


def _order(scores: Floats, rows: Rows, ids: dict[int, str], k: int) -> list[tuple[float, str, int]]:
    """Return (negative score, document id, row) of the k best."""
    numbers = rows.tolist()
    return sorted(zip((-scores).tolist(), [ids[row] for row in numbers], numbers, strict=True))[:k]


def _order_passages(
    scores: Floats, rows: Rows, ids: dict[int, str], k: int
) -> list[tuple[float, str, int]]:
    """Return (negative score, document id, row) of the best passage of the k best documents."""
    ordered = []
    for negative, row in zip((-scores).tolist(), rows.tolist(), strict=True):
        ordered.append((negative, *split_passage_id(ids[row]), row))
    best: dict[str, tuple[float, str, int]] = {}
    for negative, name, _, row in sorted(ordered):
        if name not in best:
            best[name] = (negative, name, row)
            if len(best) == k:
                break
    return list(best.values())


def _rescore(queries: Vectors, stored: Shards, rows: Rows) -> tuple[Floats, Callable[[], Doubles]]:
    """Return the inner products of queries (Q, D) with their rows (Q, n), float32 (Q, n).

    And what returns, for each query, how far an engine that multiplies in float32 may be off.
    Engines multiply in blocks, so that the last digit of a score depends on where a vector lies
    in the file. Products of two float32 are exact in float64.
    """
    vectors = stored.rows(rows.ravel()).reshape(*rows.shape, queries.shape[1])
    wide = queries.astype(np.float64)
    products = vectors.astype(np.float64)
    products *= wide[:, None, :]

    def slack() -> Doubles:
        longest = np.sqrt(np.einsum("qnd,qnd->qn", vectors, vectors).max(axis=1, initial=0.0))
        lengths = np.sqrt((wide * wide).sum(axis=1))
        factor = 4 * math.sqrt(max(1, queries.shape[1])) * 2.0**-24
        result: Doubles = factor * lengths * longest
        return result

    return products.sum(axis=2).astype(np.float32), slack


def _hit(number: int, doc_id: str, score: float, document: Document | None) -> Hit:
    score += 0.0  # -0.0 becomes 0.0
    if document is None:
        return Hit(number, doc_id, score)
    return Hit(number, doc_id, score, document.title, document.text, document.metadata)
