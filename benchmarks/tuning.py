"""The weight of hybrid search that answers a user's own judged queries best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.significance.bootstrap import bootstrap_means, percentile_interval
from indexes import Index
from indexes.search.hybrid import CANDIDATES, best_hits, collect, fuse
from retrieval import Encoder, Query
from retrieval.errors import UsageError, count_noun
from retrieval.protocols import Progress, no_progress
from retrieval.scores import Doubles, ndcg
from retrieval.types import DEFAULT_WEIGHT, Blend

CUT = 10
"""Rankings are scored by nDCG at this rank."""
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
FOLDS = 5
ALPHA = 0.05
_BATCH = 64
_SEED = 0

Judged = Mapping[str, Mapping[str, int]]
"""Query id to document id to judgement; above 0 is relevant."""


@dataclass(frozen=True)
class Tuning:
    """What a grid of weights scores on judged queries.

    Attributes
    ----------
    weight : the best on all queries; of equal ones, the nearest to the default.
    curve : mean nDCG@10 over all queries by weight; 0 is the lexical arm, 1 the dense one.
    held_out : mean nDCG@10 of queries whose weight was chosen on the others, in five folds.
    before : mean nDCG@10 with the default weight.
    low, high : 95% interval of ``held_out - before``, by a paired bootstrap over the queries.
    queries : how many were judged.
    """

    weight: float
    curve: Mapping[float, float]
    held_out: float
    before: float
    low: float
    high: float
    queries: int

    @property
    def helps(self) -> bool:
        """Whether weights that were chosen on other queries beat the default on the mean."""
        return self.held_out > self.before


def tune_weight(
    index: Index,
    encoder: Encoder,
    queries: Sequence[Query],
    judged: Judged,
    *,
    progress: Progress = no_progress,
) -> Tuning:
    """Return what weights from 0 to 1 in steps of 0.05 score on judged queries.

    Parameters
    ----------
    index : with both arms; only read.
    encoder : the model that made it.
    queries : those without a relevant document in ``judged`` are left out. A relevant document
        that the index lacks counts as not found.
    progress : called with the number of queries that were answered since the last call.

    Raises
    ------
    UsageError : fewer than two queries have a relevant document, or the index has one arm.
    """
    index.choose(Blend("hybrid"))
    asked = [
        query for query in queries if any(s > 0 for s in judged.get(query.query_id, {}).values())
    ]
    if len(asked) < 2:
        raise UsageError(
            f"{len(asked)} of {count_noun(len(queries), 'query', 'queries')} "
            f"{'has' if len(asked) == 1 else 'have'} a document judged above 0; a weight needs two "
            "at least, and 50 or more to be worth much. The weight stays as it is."
        )
    scores = score_weights(index, encoder, asked, judged, progress)
    default = WEIGHTS.index(DEFAULT_WEIGHT)
    held_out = _cross_validate(scores, default)
    means = bootstrap_means([held_out, scores[:, default]], seed=_SEED)
    low, high = percentile_interval(means[0] - means[1], ALPHA)
    return Tuning(
        WEIGHTS[_best(scores, default)],
        dict(zip(WEIGHTS, scores.mean(axis=0).tolist(), strict=True)),
        float(held_out.mean()),
        float(scores[:, default].mean()),
        low,
        high,
        len(asked),
    )


def score_weights(
    index: Index,
    encoder: Encoder,
    queries: Sequence[Query],
    judged: Judged,
    progress: Progress = no_progress,
) -> Doubles:
    """Return the nDCG@10 of every query with each of ``WEIGHTS``, float64 (queries, weights)."""
    rows = list(_score_each(index, encoder, queries, judged, progress))
    return np.array(rows).reshape(len(queries), len(WEIGHTS))


def _score_each(
    index: Index, encoder: Encoder, queries: Sequence[Query], judged: Judged, progress: Progress
) -> Iterator[list[float]]:
    parts = index.parts
    for start in range(0, len(queries), _BATCH):
        chunk = queries[start : start + _BATCH]
        texts = [query.text for query in chunk]
        pools = collect(parts, encoder.encode_queries(texts), texts, CANDIDATES)
        for query, pool in zip(chunk, pools, strict=True):
            row = []
            for weight in WEIGHTS:
                fused = fuse(pool, Blend("hybrid", weight=weight))
                best = best_hits(parts, pool, fused, CUT, query.text, with_text=False)
                row.append(ndcg([hit.doc_id for hit in best], judged[query.query_id], CUT))
            yield row
        progress(len(chunk))


def _cross_validate(scores: Doubles, default: int) -> Doubles:
    """Return each query's score with the weight that is best on the other folds, (queries,)."""
    order = np.random.default_rng(_SEED).permutation(len(scores))
    held_out = np.empty(len(scores))
    for fold in np.array_split(order, min(FOLDS, len(scores))):
        others = np.setdiff1d(order, fold)
        held_out[fold] = scores[fold, _best(scores[others], default)]
    return held_out


def _best(scores: Doubles, default: int) -> int:
    """Return the number of the best weight; of equal ones, the nearest to the default."""
    means = scores.mean(axis=0).round(12)
    return min(np.flatnonzero(means == means.max()).tolist(), key=lambda w: abs(w - default))
