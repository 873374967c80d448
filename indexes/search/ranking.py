"""Candidates of an engine become hits: scores that do not depend on it, ties settled by id."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from indexes.search.selection import Selection
from indexes.storage.documents import DocumentStore, Fields
from indexes.storage.files import damaged
from indexes.storage.vectors import Shards
from retrieval import Hit, Vectors
from retrieval.passages import read_passage, split_passage_id
from retrieval.protocols import Floats, Rows
from retrieval.scores import Doubles

__all__ = ["Candidates", "ExactScan", "Found", "make_hits", "rank"]

EXTRA_CANDIDATES = 16
LONGER = 1e-3
"""What rounding to float16 may add to a length of 1, and more."""
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
    unit: bool = False,
    float_scores: bool = False,
) -> list[Found]:
    """Return, per query, scores and rows of the k best and of all that tie with the kth.

    Floats are computed again from the vectors on disk, in float64, and rounded to float32: they
    do not depend on the engine, on what it stores or rounds, or on the batch. An exact search
    asks for a few more than k, and for twice as many for as long as what lies beyond could
    still tie; an approximate one settles ties among what it was given.

    Parameters
    ----------
    unit : whether all stored vectors have length 1.
    float_scores : whether candidates come with their inner products in float32. Of unit vectors,
        those that cannot reach the kth place are not computed again then.

    Raises
    ------
    IndexCorruptError : a vector that should have length 1 is longer.
    """
    total = selection.count
    if not total:
        return [(np.zeros(0, np.float32), np.zeros(0, np.int64)) for _ in queries]
    found: dict[int, Found] = {}
    pending = list(range(len(queries)))
    wanted = min(k + EXTRA_CANDIDATES, total)
    while pending:
        asked = queries if len(pending) == len(queries) else queries[pending]
        answers = candidates(asked, wanted, exact=exact, selection=selection)
        unsettled = []
        for places, count in _group(answers):
            group = _Group.of(asked, answers, places, unit)
            if unit and float_scores and count > k:
                group.drop_hopeless(k)
            precise, least = group.rescore(stored, k)
            open_ones: list[bool] = []
            if exact and count == wanted < total:
                open_ones = (group.given[:, -1] + group.slack() >= least[:, 0]).tolist()
            kept = precise >= least
            for number, place in enumerate(places):
                if open_ones and open_ones[number]:
                    unsettled.append(pending[place])
                else:
                    chosen = kept[number]
                    rows = group.rows[number]
                    found[pending[place]] = (precise[number][chosen], rows[chosen])
        pending = unsettled
        wanted = min(2 * wanted, total)
    return [found[query] for query in range(len(queries))]


@dataclass
class _Group:
    """A few queries (Q, D) with the same number n of candidates.

    Attributes
    ----------
    rows : int64 (Q, n).
    given : the engine's scores, float32 (Q, n), best first; not shortened with ``rows``.
    longest : the length of each query's longest vector; at most that, for unit vectors.
    """

    queries: Vectors
    rows: Rows
    given: Floats
    unit: bool
    longest: float | Doubles = 1 + LONGER

    @classmethod
    def of(
        cls, queries: Vectors, answers: Sequence[Found], places: list[int], unit: bool
    ) -> _Group:
        if len(places) == 1:
            scores, rows = answers[places[0]]
            return cls(queries[places[0] : places[0] + 1], rows[None], scores[None], unit)
        few = queries if len(places) == len(queries) else queries[places]
        rows = np.array([answers[place][1] for place in places])
        return cls(few, rows, np.array([answers[place][0] for place in places]), unit)

    @cached_property
    def lengths(self) -> Floats:
        """Of the queries, (Q,)."""
        found: Floats = np.sqrt(np.einsum("qd,qd->q", self.queries, self.queries))
        return found

    def slack(self) -> Doubles:
        """Return (Q,), how far an engine that multiplies in float32 may be off."""
        factor = 4 * math.sqrt(max(1, self.queries.shape[1])) * 2.0**-24
        found: Doubles = factor * self.longest * self.lengths.astype(np.float64)
        return found

    def drop_hopeless(self, k: int) -> None:
        """Leave out the last candidates, if they cannot be among the k best of any query."""
        reach = self.given[:, k - 1] - 2 * self.slack()
        most = int((self.given >= reach[:, None]).sum(axis=1).max())
        self.rows = self.rows[:, :most]

    def rescore(self, stored: Shards, k: int) -> tuple[Floats, Floats]:
        """Return the inner products with the stored vectors, float32 (Q, n), and the kth (Q, 1).

        Engines multiply in blocks, so that the last digit of a score depends on where a vector
        lies in the file. Products of two float32 are exact in float64.
        """
        shape = (*self.rows.shape, self.queries.shape[1])
        vectors = stored.rows(self.rows.ravel()).reshape(shape)
        products = vectors.astype(np.float64)
        products *= self.queries.astype(np.float64)[:, None, :]
        precise: Floats = products.sum(axis=2).astype(np.float32)
        if self.unit:
            self._check(precise, stored)
        else:
            squares = np.einsum("qnd,qnd->qn", vectors, vectors)
            self.longest = np.sqrt(squares.max(axis=1, initial=0.0)).astype(np.float64)
        ordered, place = precise.copy(), max(0, shape[1] - k)
        ordered.partition(place, axis=1)
        return precise, ordered[:, place : place + 1]  # of all, where there are no more than k

    def _check(self, precise: Floats, stored: Shards) -> None:
        limits = (1 + LONGER) * self.lengths
        longer = ~(precise <= limits[:, None])
        if longer.any():
            row = int(self.rows[longer][0])
            fault = f"vector {row:,} of the index is longer than 1"
            raise damaged(stored.path_of(row), fault)


def _group(answers: Sequence[Found]) -> Iterator[tuple[list[int], int]]:
    """Yield the numbers of a few queries that have as many candidates, and how many those are."""
    if len(answers) == 1:
        yield [0], len(answers[0][1])
        return
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
    ids: Mapping[int, str] | None = None,
) -> list[list[Hit]]:
    """Return at most k hits for each query, by falling score, then by document id.

    Where rows are ``passages``, a document is hit once, by its best one, whose text it shows.

    Parameters
    ----------
    ids : the stored id of each row, where they were read already.
    """
    texts = None
    if ids is None:
        rows = np.concatenate([rows for _, rows in found]) if len(found) > 1 else found[0][1]
        # Ties apart, what was found is what is shown, and is read once.
        texts = documents.read(rows) if with_text and len(rows) <= 2 * k * len(found) else None
        ids = documents.ids(rows) if texts is None else {row: t[0] for row, t in texts.items()}
    order = _order_passages if passages else _order
    best = [order(scores, rows, ids, k) for scores, rows in found]
    if with_text and texts is None:
        chosen = [row for hits in best for _, _, row in hits]
        texts = documents.read(np.array(chosen, dtype=np.int64))
    return [
        [
            _hit(number, doc_id, 0.0 - negative, row, texts[row] if texts else None, passages)
            for number, (negative, doc_id, row) in enumerate(hits, start=1)
        ]
        for hits in best
    ]


def _hit(
    number: int, doc_id: str, score: float, row: int, fields: Fields | None, passages: bool
) -> Hit:
    if fields is None:
        return Hit(number, doc_id, score, row=row)
    stored_id, title, text, metadata = fields
    passage = read_passage(stored_id, text) if passages else None
    return Hit(number, doc_id, score, title, text, metadata, passage=passage, row=row)


def _order(
    scores: Floats, rows: Rows, ids: Mapping[int, str], k: int
) -> list[tuple[float, str, int]]:
    """Return (negative score, document id, row) of the k best."""
    numbers = rows.tolist()
    return sorted(zip((-scores).tolist(), [ids[row] for row in numbers], numbers, strict=True))[:k]


def _order_passages(
    scores: Floats, rows: Rows, ids: Mapping[int, str], k: int
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
