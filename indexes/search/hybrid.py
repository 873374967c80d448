"""Search by words: the best of the lexical arm, alone or fused with the best of the dense one.

The candidates of a hybrid query are the union of the best ``max(k, 100)`` of each arm. What one
arm did not return is scored by it all the same, exactly. The candidates decide where min-max puts
0, so scores of searches with other k above 100 differ a little. Of several indexes the lists are
merged before they are cut, and scores are normalised over the candidates of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np

from indexes.search.ranking import Found, inner_products, make_hits
from indexes.search.selection import Selection
from indexes.snapshot import PASSAGES_PER_HIT, Snapshot
from retrieval import Hit, Vectors
from retrieval.protocols import Floats, Rows
from retrieval.scores import Doubles
from retrieval.types import DENSE, LEXICAL, ArmScore, Blend

CANDIDATES = 100
"""How many of each arm are candidates, for k up to that."""
RRF_K = 60
"""The constant of reciprocal rank fusion, as published."""
_MORE = 16

Place: TypeAlias = tuple[int, int]
"""A row of one of several indexes: the number of the index, and the row."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the indexes that a search goes over.

    Attributes
    ----------
    name : what its hits name; "" where it is the only one.
    folder : where it is.
    selection : the rows that the search may return.
    """

    name: str
    folder: Path
    snapshot: Snapshot
    selection: Selection

    @classmethod
    def of(cls, name: str, folder: Path, snapshot: Snapshot) -> Part:
        """Return an index of which every row may be returned."""
        return cls(name, folder, snapshot, snapshot.rows.everything)


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of one query, n of them, each a row of an index.

    Attributes
    ----------
    places : index and row of each.
    ids : stored ids, those of passages where an index is cut into passages.
    scores : by arm, "dense" and "lexical" or the latter alone, float32 (n,), exact for every
        candidate.
    ranks : by arm, int64 (n,), from 1; 0 where the arm did not return the candidate.
    """

    places: list[Place]
    ids: list[str]
    scores: dict[str, Floats]
    ranks: dict[str, Rows]


def fuse(pool: Pool, blend: Blend) -> Floats:
    """Return the fused score of each candidate, float32 (n,); of one arm alone its own.

    Convex (Bruch, Gai and Ingber, arXiv 2210.11934, eq. 3): ``weight * minmax(dense) +
    (1 - weight) * minmax(lexical)``, where ``minmax`` maps the lowest score among the candidates
    to 0 and the highest to 1. An arm that gives all candidates one score says nothing and counts 0
    for each: after a query of stop words alone, the dense arm alone decides. The paper prefers the
    lowest score that an arm can give as its minimum; here it is the lowest among the candidates,
    since an inner product has none.

    With "rrf": the sum of ``1 / (60 + rank)`` over the arms that returned the candidate (Cormack,
    Clarke and Buettcher, SIGIR 2009).
    """
    if DENSE not in pool.scores:
        return pool.scores[LEXICAL]
    if blend.fusion == "rrf":
        ranks = [pool.ranks[arm] for arm in (DENSE, LEXICAL)]
        shares = [np.where(rank > 0, 1.0 / (RRF_K + rank), 0.0) for rank in ranks]
        return (shares[0] + shares[1]).astype(np.float32)
    assert blend.weight is not None
    dense, lexical = (_scale(pool.scores[arm]) for arm in (DENSE, LEXICAL))
    return (blend.weight * dense + (1.0 - blend.weight) * lexical).astype(np.float32)


def _scale(scores: Floats) -> Doubles:
    exact = scores.astype(np.float64)
    lowest, highest = exact.min(initial=np.inf), exact.max(initial=-np.inf)
    if not highest > lowest:
        return np.zeros(len(exact))
    scaled: Doubles = (exact - lowest) / (highest - lowest)
    return scaled


def search_words(
    parts: Sequence[Part],
    vectors: Vectors | None,
    texts: Sequence[str],
    k: int,
    blend: Blend,
    *,
    with_text: bool = True,
) -> list[list[Hit]]:
    """Return at most k hits per query, by falling score, then by document id.

    Without vectors the score is BM25, and no model is needed; of several indexes, each scores by
    the statistics of its own documents. Where rows are passages, rows are scored, and a document is
    hit once, by its best one; more candidates are asked for until they belong to k documents.

    Parameters
    ----------
    vectors, texts : float32 (Q, D) or None, and the Q texts that they were made from.
    blend : with a fusion and, for a convex one, a weight, where there are vectors.
    """
    total = sum(part.selection.count for part in parts)
    hits: dict[int, list[Hit]] = {}
    pending, depth = list(range(len(texts))), k if vectors is None else max(k, CANDIDATES)
    while pending:
        chosen = [texts[query] for query in pending]
        pools = collect(parts, None if vectors is None else vectors[pending], chosen, depth)
        unsettled = []
        for query, pool in zip(pending, pools, strict=True):
            hits[query] = best_hits(
                parts, pool, fuse(pool, blend), k, texts[query], with_text=with_text
            )
            if len(hits[query]) < k and depth <= len(pool.ids) and depth < total:
                unsettled.append(query)
        pending, depth = unsettled, PASSAGES_PER_HIT * depth
    return [hits[query] for query in range(len(texts))]


def collect(
    parts: Sequence[Part], vectors: Vectors | None, texts: Sequence[str], depth: int
) -> Iterator[Pool]:
    """Yield the candidates of each query, with exact scores of both arms.

    Parameters
    ----------
    vectors, texts : float32 (Q, D) or None for the lexical arm alone, and the Q texts that they
        were made from.
    depth : how many of each arm are candidates.
    """
    dense: list[list[Found]] = []
    if vectors is not None:
        dense = [part.snapshot.find(vectors, depth, part.selection) for part in parts]
    for query, text in enumerate(texts):
        found: dict[str, list[Found]] = {}
        if dense:
            found[DENSE] = [answers[query] for answers in dense]
        found[LEXICAL], words = _find_lexical(parts, text, depth, found.get(DENSE))
        ids = _read_ids(parts, found.values())
        best = {arm: _rank(lists, ids, depth) for arm, lists in found.items()}
        places = list(dict.fromkeys(chain.from_iterable(best.values())))
        ranks = {
            arm: np.array([ranked.get(place, (0, 0.0))[0] for place in places], np.int64)
            for arm, ranked in best.items()
        }
        scores = {
            arm: np.array([ranked.get(place, (0, 0.0))[1] for place in places], np.float32)
            for arm, ranked in best.items()
        }
        if vectors is not None:
            for number, part in enumerate(parts):
                _fill(part, number, places, scores, ranks, vectors[query])
            missing = np.flatnonzero(ranks[LEXICAL] == 0)
            scores[LEXICAL][missing] = [words[places[n]] for n in missing.tolist()]
        yield Pool(places, [ids[place] for place in places], scores, ranks)


def _find_lexical(
    parts: Sequence[Part], text: str, depth: int, dense: Sequence[Found] | None
) -> tuple[list[Found], dict[Place, float]]:
    """Return the best rows of the lexical arm, by index, and what it gives those of the dense one.

    With the best rows come all that tie with the last of them.
    """
    best: list[Found] = []
    words: dict[Place, float] = {}
    for number, part in enumerate(parts):
        arm = part.snapshot.lexical
        assert arm is not None
        others = dense[number][1] if dense else np.zeros(0, np.int64)
        wanted = depth + _MORE
        while True:
            (scores, rows), given = arm.search_and_score(text, wanted, part.selection, others)
            if len(rows) < wanted or scores[-1] < scores[depth - 1]:
                break
            wanted *= 2
        best.append((scores, rows))
        places = ((number, row) for row in others.tolist())
        words.update(zip(places, given.tolist(), strict=True))
    return best, words


def _read_ids(parts: Sequence[Part], arms: Iterable[Sequence[Found]]) -> dict[Place, str]:
    """Return the stored id of every row that was found."""
    ids: dict[Place, str] = {}
    for number, (part, found) in enumerate(zip(parts, zip(*arms, strict=True), strict=True)):
        rows = np.concatenate([rows for _, rows in found])
        named = part.snapshot.documents.ids(rows)
        ids.update({(number, row): name for row, name in named.items()})
    return ids


def _rank(
    found: Sequence[Found], ids: dict[Place, str], depth: int
) -> dict[Place, tuple[int, float]]:
    """Return rank and score of the best of one arm, equal scores in the order of their ids."""
    ordered = sorted(
        (-score, ids[number, row], number, row)
        for number, (scores, rows) in enumerate(found)
        for score, row in zip(scores.tolist(), rows.tolist(), strict=True)
    )
    return {
        (number, row): (rank, -negative)
        for rank, (negative, _, number, row) in enumerate(ordered[:depth], start=1)
    }


def _fill(
    part: Part,
    number: int,
    places: Sequence[Place],
    scores: dict[str, Floats],
    ranks: dict[str, Rows],
    vector: Floats,
) -> None:
    """Let the dense arm score the candidates of one index that it did not return."""
    here = np.array([place[0] == number for place in places], np.bool_)
    missing = here & (ranks[DENSE] == 0)
    if missing.any():
        rows = np.array([row for _, row in places], np.int64)
        vectors = part.snapshot.stored.rows(rows[missing])[None]
        scores[DENSE][missing] = inner_products(vectors, vector[None].astype(np.float64))[0]


def best_hits(
    parts: Sequence[Part], pool: Pool, scores: Floats, k: int, text: str, *, with_text: bool
) -> list[Hit]:
    """Return the k best documents of a pool by these scores (n,), equal ones by document id."""
    lists = []
    for number, part in enumerate(parts):
        here = [n for n, place in enumerate(pool.places) if place[0] == number]
        rows = np.array([pool.places[n][1] for n in here], np.int64)
        candidates = dict(zip(rows.tolist(), here, strict=True))
        (hits,) = make_hits(
            [(scores[here], rows)],
            part.snapshot.documents,
            k,
            with_text=with_text,
            passages=bool(part.snapshot.manifest.passages),
            ids={row: pool.ids[n] for row, n in candidates.items()},
        )
        lists.append([_explain(part, pool, candidates[hit.row], hit, text) for hit in hits])
    return merge(lists, k)


def _explain(part: Part, pool: Pool, candidate: int, hit: Hit, text: str) -> Hit:
    """Return a hit with what the arms say of it."""
    lexical = part.snapshot.lexical
    matched = lexical.matched(text, f"{hit.title} {hit.text}") if lexical else ()
    arms = _arm_scores(pool, candidate)
    return replace(hit, arms=arms, matched=tuple(matched), index=part.name)


def merge(lists: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Return the k best of some lists of k at most, equal scores by document id."""
    if len(lists) == 1:
        return list(lists[0])
    every = [hit for hits in lists for hit in hits]
    every.sort(key=lambda hit: (-hit.score, hit.doc_id))  # stable: then by index
    return [replace(hit, rank=rank) for rank, hit in enumerate(every[:k], start=1)]


def _arm_scores(pool: Pool, candidate: int) -> dict[str, ArmScore]:
    if DENSE not in pool.scores:
        return {}
    return {
        arm: ArmScore(float(scores[candidate]) + 0.0, int(pool.ranks[arm][candidate]) or None)
        for arm, scores in pool.scores.items()
    }
