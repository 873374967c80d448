"""Candidates of an engine become hits: scores that do not depend on it, ties settled by id."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import le, neg
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

EXTRA_CANDIDATES = 16
LONGEST = 1 + 1e-3
"""Vectors of length 1, rounded to float16, are no longer than this."""
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
    wide = queries.astype(np.float64)
    lengths = [math.sqrt(square) for square in np.einsum("qd,qd->q", wide, wide).tolist()]
    # How far an engine that multiplies in float32 may be off, by the lengths of both vectors.
    error = 4 * math.sqrt(max(1, queries.shape[1])) * 2.0**-24
    reach = 2 * LONGEST * error if unit and float_scores else math.inf
    found: dict[int, Found] = {}
    pending = list(range(len(queries)))
    wanted = min(k + EXTRA_CANDIDATES, total)
    while pending:
        asked = queries if len(pending) == len(queries) else queries[pending]
        answers = candidates(asked, wanted, exact=exact, selection=selection)
        counts = [
            _hopeful(given, k, reach * lengths[query])
            for query, (given, _) in zip(pending, answers, strict=True)
        ]
        unsettled: list[int] = []
        for places, count in _group(counts):
            numbers = [pending[place] for place in places]
            few = slice(None) if len(numbers) == len(queries) else numbers
            rows = np.array([answers[place][1][:count] for place in places])
            vectors = stored.rows(rows)
            scores = inner_products(vectors, wide[few])
            if unit:
                _check_lengths(stored, rows, scores, [lengths[query] for query in numbers])
            if not exact and count <= k:
                found.update(zip(numbers, zip(scores, rows, strict=True), strict=True))
                continue
            least = np.sort(scores, axis=1)[:, -k:][:, :1]  # the kth, or the last of fewer
            kept, ends = scores >= least, least.tolist()
            longest = [LONGEST] * len(numbers) if unit else _longest(vectors)
            for number, query in enumerate(numbers):
                given, chosen = answers[places[number]][0], kept[number]
                slack = error * longest[number] * lengths[query]
                cut = exact and len(given) == wanted < total
                if cut and float(given[-1]) + slack >= ends[number][0]:
                    unsettled.append(query)
                else:
                    found[query] = (scores[number][chosen], rows[number][chosen])
        pending = unsettled
        wanted = min(2 * wanted, total)
    return [found[query] for query in range(len(queries))]


def _hopeful(given: Floats, k: int, near: float) -> int:
    """Return how many of these scores, best first, are the k best or so near to the kth."""
    if len(given) <= k:
        return len(given)
    scores = given.tolist()
    return bisect_right(scores, near - scores[k - 1], k, key=neg)


def _group(counts: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Yield the numbers of a few queries that have as many candidates, and how many those are."""
    alike: dict[int, list[int]] = {}
    for number, count in enumerate(counts):
        alike.setdefault(count, []).append(number)
    for count, numbers in alike.items():
        step = max(1, RESCORED_TOGETHER // max(1, count))
        for start in range(0, len(numbers), step):
            yield numbers[start : start + step], count


def inner_products(vectors: Vectors, queries: Doubles) -> Floats:
    """Return those of (Q, n, D) with (Q, D), float32 (Q, n), the same in any company.

    Engines multiply in blocks, so that the last digit of a score depends on where a vector lies in
    the file. Products of two float32 are exact in float64.
    """
    products = np.einsum("qnd,qd->qn", vectors.astype(np.float64), queries)
    found: Floats = products.astype(np.float32)
    return found


def _longest(vectors: Vectors) -> list[float]:
    """Return the length of the longest of each query's vectors, (Q, n, D)."""
    squares = np.einsum("qnd,qnd->qn", vectors, vectors).max(axis=1, initial=0.0)
    return np.sqrt(squares).tolist()  # type: ignore[no-any-return]


def _check_lengths(stored: Shards, rows: Rows, scores: Floats, lengths: Sequence[float]) -> None:
    """Raise IndexCorruptError for a vector whose score no vector of length 1 could have."""
    limits = [LONGEST * length for length in lengths]
    if not all(map(le, scores.max(axis=1, initial=0.0).tolist(), limits)):
        row = int(rows[~(scores <= np.array(limits)[:, None])][0])
        raise damaged(stored.path_of(row), f"vector {row:,} of the index is longer than 1")


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
            _hit(rank, name, 0.0 - negative, row, texts[row] if texts else None, passages)
            for rank, (negative, name, row) in enumerate(hits, start=1)
        ]
        for hits in best
    ]


def _hit(
    rank: int, doc_id: str, score: float, row: int, fields: Fields | None, passages: bool
) -> Hit:
    if fields is None:
        return Hit(rank, doc_id, score, row=row)
    stored_id, title, text, metadata = fields
    passage = read_passage(stored_id, text) if passages else None
    return Hit(rank, doc_id, score, title, text, metadata, passage=passage, row=row)


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
