"""Search by words: the best of the lexical arm, alone or fused with the best of the dense one.

The candidates of a hybrid query are the union of the best ``max(k, 100)`` of each arm. What one
arm did not return is scored by it all the same, exactly. The candidates decide where min-max puts
0, so scores of searches with other k above 100 differ a little. Of several indexes the lists are
merged before they are cut, and scores are normalised over the candidates of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

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
    keys : int64 (n,), rising: the rows of several indexes are numbered on from one to the next.
    ids : stored ids, those of passages where an index is cut into passages.
    scores : by arm, "dense" and "lexical" or the latter alone, float32 (n,), exact for every
        candidate.
    ranks : by arm, int64 (n,), from 1; 0 where the arm did not return the candidate.
    """

    keys: Rows
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
    starts = _starts(parts)
    dense: list[list[Found]] = []
    if vectors is not None:
        dense = [part.snapshot.find(vectors, depth, part.selection) for part in parts]
    found: list[tuple[dict[str, Found], Floats]] = []
    for query, text in enumerate(texts):
        near = [answers[query] for answers in dense]
        words, given = _find_lexical(parts, text, depth, near)
        arms: dict[str, Found] = {DENSE: _join(near, starts)} if near else {}
        found.append((arms | {LEXICAL: _join(words, starts)}, given))
    ids = _read_ids(parts, starts, [keys for arms, _ in found for _, keys in arms.values()])
    for query, (arms, given) in enumerate(found):
        pool = _make_pool(arms, given, ids, depth)
        if vectors is not None:
            _fill(parts, starts, pool, vectors[query])
        yield pool


def _starts(parts: Sequence[Part]) -> list[int]:
    """Return the key of the first row of each index, and of one more that would follow."""
    return [0, *accumulate(len(part.snapshot.stored) for part in parts)]


def _find_lexical(
    parts: Sequence[Part], text: str, depth: int, dense: Sequence[Found]
) -> tuple[list[Found], Floats]:
    """Return the best rows of the lexical arm, by index, and what it gives those of the dense one.

    With the best rows come all that tie with the last of them.
    """
    found: list[Found] = []
    scores = [np.zeros(0, np.float32)]
    for number, part in enumerate(parts):
        arm, wanted = part.snapshot.lexical, depth + _MORE
        assert arm is not None
        others = dense[number][1] if dense else np.zeros(0, np.int64)
        while True:
            best, given = arm.search_and_score(text, wanted, part.selection, others)
            if len(best[0]) < wanted or best[0][-1] < best[0][depth - 1]:
                break
            wanted *= 2
        found.append(best)
        scores.append(given)
    return found, np.concatenate(scores)


def _join(found: Sequence[Found], starts: Sequence[int]) -> Found:
    """Return the scores and keys of what was found in each index."""
    keys = [rows + start for (_, rows), start in zip(found, starts, strict=False)]
    return np.concatenate([scores for scores, _ in found]), np.concatenate(keys)


def _read_ids(parts: Sequence[Part], starts: Sequence[int], keys: Sequence[Rows]) -> dict[int, str]:
    """Return the stored id of each key."""
    ids: dict[int, str] = {}
    wanted = np.unique(np.concatenate(keys))
    for part, (start, stop) in zip(parts, pairwise(starts), strict=True):
        rows = wanted[(wanted >= start) & (wanted < stop)] - start
        named = part.snapshot.documents.ids(rows)
        ids.update({start + row: name for row, name in named.items()})
    return ids


def _make_pool(
    arms: Mapping[str, Found], given: Floats, ids: Mapping[int, str], depth: int
) -> Pool:
    """Return the best candidates of each arm; the dense one gives 0 to those of the other.

    ``given`` is what the lexical arm gives those of the dense one.
    """
    best = {arm: _order(*found, ids, depth) for arm, found in arms.items()}
    keys = np.unique(np.concatenate([found[best[arm]] for arm, (_, found) in arms.items()]))
    pool = Pool(keys, [ids[key] for key in keys.tolist()], {}, {})
    for arm, (scores, found) in arms.items():
        places = keys.searchsorted(found[best[arm]])
        pool.scores[arm] = np.zeros(len(keys), np.float32)
        pool.ranks[arm] = np.zeros(len(keys), np.int64)
        pool.scores[arm][places] = scores[best[arm]]
        pool.ranks[arm][places] = np.arange(1, len(places) + 1)
    if DENSE in arms:
        places = keys.searchsorted(arms[DENSE][1][best[DENSE]])
        pool.scores[LEXICAL][places] = given[best[DENSE]]
    return pool


def _order(scores: Floats, keys: Rows, ids: Mapping[int, str], depth: int) -> Rows:
    """Return the places of the best, equal scores in the order of their ids."""
    numbers = keys.tolist()
    names = [ids[key] for key in numbers]
    ordered = sorted(zip((-scores).tolist(), names, numbers, range(len(keys)), strict=True))
    return np.array([place for *_, place in ordered[:depth]], np.int64)


def _fill(parts: Sequence[Part], starts: Sequence[int], pool: Pool, vector: Floats) -> None:
    """Let the dense arm score the candidates that it did not return."""
    missing = pool.ranks[DENSE] == 0
    query = vector[None].astype(np.float64)
    for part, (start, stop) in zip(parts, pairwise(starts), strict=True):
        here = missing & (pool.keys >= start) & (pool.keys < stop)
        if here.any():
            vectors = part.snapshot.stored.rows(pool.keys[here] - start)[None]
            pool.scores[DENSE][here] = inner_products(vectors, query)[0]


def best_hits(
    parts: Sequence[Part], pool: Pool, scores: Floats, k: int, text: str, *, with_text: bool
) -> list[Hit]:
    """Return the k best documents of a pool by these scores (n,), equal ones by document id."""
    lists = []
    starts = _starts(parts)
    for part, (start, stop) in zip(parts, pairwise(starts), strict=True):
        first, last = np.searchsorted(pool.keys, [start, stop]).tolist()
        rows = pool.keys[first:last] - start
        (hits,) = make_hits(
            [(scores[first:last], rows)],
            part.snapshot.documents,
            k,
            with_text=with_text,
            passages=bool(part.snapshot.manifest.passages),
            ids=dict(zip(rows.tolist(), pool.ids[first:last], strict=True)),
        )
        places = pool.keys.searchsorted([start + hit.row for hit in hits])
        for hit, arms in zip(hits, _arm_scores(pool, places), strict=True):
            hit.arms, hit.index = arms, part.name
            if with_text and part.snapshot.lexical:
                words = part.snapshot.lexical.matched(text, f"{hit.title} {hit.text}")
                hit.matched = tuple(words)
        lists.append(hits)
    return merge(lists, k)


def merge(lists: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Return the k best of some lists of k at most, equal scores by document id."""
    if len(lists) == 1:
        return list(lists[0])
    every = [hit for hits in lists for hit in hits]
    every.sort(key=lambda hit: (-hit.score, hit.doc_id))  # stable: then by index
    return [replace(hit, rank=rank) for rank, hit in enumerate(every[:k], start=1)]


def _arm_scores(pool: Pool, places: Rows) -> list[dict[str, ArmScore]]:
    if DENSE not in pool.scores:
        return [{} for _ in places]
    arms = []
    for arm, scores in pool.scores.items():
        values, ranks = (scores[places] + 0.0).tolist(), pool.ranks[arm][places].tolist()
        arms.append(
            [ArmScore(score, rank or None) for score, rank in zip(values, ranks, strict=True)]
        )
    return [dict(zip(pool.scores, pair, strict=True)) for pair in zip(*arms, strict=True)]
