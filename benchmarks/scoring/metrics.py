"""Scores of rankings, similarities, classifications and clusterings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.scoring.optional import import_optional

__all__ = ["correlations", "cosines", "is_constant", "retrieval_metrics", "score_run"]

Run = Mapping[str, Mapping[str, float]]
"""Query id to document id to score."""

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to document id to judgement; above 0 is relevant."""

_MRR_CUT = 10
_NOISE = 1e-6


def retrieval_metrics(k: int) -> tuple[str, ...]:
    """Return the names of the scores of a ranking, the main one first."""
    return tuple(dict.fromkeys((f"ndcg@{k}", "map", f"recall@{k}", "recall@100", "mrr@10")))


def score_run(qrels: Qrels, run: Run, k: int) -> dict[str, dict[str, float]]:
    """Return metric to query id to score, for every query of ``qrels``, by trec_eval's code.

    "ndcg@k" (gain is the judgement, discount log2(rank + 1)), "map" over all that the run holds,
    "recall@k", "recall@100" and "mrr@10". Equal scores are ordered as trec_eval does, whatever
    the run's own order. A query that the run lacks, or that found nothing, scores 0.

    Raises
    ------
    MissingDependencyError : pytrec_eval is not installed.
    """
    pytrec_eval = import_optional("pytrec_eval", "Scoring retrieval")
    measures = {f"ndcg_cut.{k}", "map", f"recall.{k},100", "recip_rank"}
    judged = {query: dict(row) for query, row in qrels.items()}
    answered = {query: dict(row) for query, row in run.items() if row and query in judged}
    found = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(answered)
    columns = {
        f"ndcg@{k}": f"ndcg_cut_{k}",
        "map": "map",
        f"recall@{k}": f"recall_{k}",
        "recall@100": "recall_100",
        "mrr@10": "recip_rank",
    }
    scores = {
        name: {query: float(found[query][column]) if query in found else 0.0 for query in judged}
        for name, column in columns.items()
    }
    # A first relevant document beyond rank 10 counts as none.
    scores["mrr@10"] = {
        query: value if value > 1 / (_MRR_CUT + 0.5) else 0.0
        for query, value in scores["mrr@10"].items()
    }
    return scores


def cosines(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the cosine of each row of two arrays (N, D), float64 (N,); 0 for a zero vector."""
    a, b = (np.asarray(rows, dtype=np.float64) for rows in (left, right))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    found: npt.NDArray[np.float64] = np.zeros_like(products)
    np.divide(products, lengths, out=found, where=lengths > 0)
    return found


def is_constant(values: npt.ArrayLike) -> bool:
    """Whether all values are one number, but for the rounding of float32."""
    array = np.asarray(values, dtype=np.float64)
    return bool(np.ptp(array) <= _NOISE * max(1.0, float(np.abs(array).max())))


def correlations(left: Sequence[float], right: Sequence[float]) -> tuple[float, float]:
    """Return Spearman's and Pearson's correlation; NaN for both where a side is constant.

    Raises
    ------
    MissingDependencyError : scipy is not installed.
    """
    if is_constant(left) or is_constant(right):
        return math.nan, math.nan
    stats = import_optional("scipy.stats", "Scoring similarity")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of values that are nearly constant
        return (
            float(stats.spearmanr(left, right).statistic),
            float(stats.pearsonr(left, right).statistic),
        )
