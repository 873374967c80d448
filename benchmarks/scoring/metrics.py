"""The scores of rankings, as trec_eval computes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrieval.scores import ndcg

_MRR_CUT = 10

TrecRun = Mapping[str, Mapping[str, float]]
"""Query id to document id to score."""

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to document id to judgement; above 0 is relevant."""


def retrieval_metrics(k: int) -> tuple[str, ...]:
    """Return the names of the scores of a ranking, the main one first."""
    return tuple(dict.fromkeys((f"ndcg@{k}", "map", f"recall@{k}", "recall@100", "mrr@10")))


def score_run(qrels: Qrels, run: TrecRun, k: int) -> dict[str, dict[str, float]]:
    """Return metric to query id to score, for every query of ``qrels``.

    "ndcg@k" (gain is the judgement, discount log2(rank + 1)), "map" over all that the run holds,
    "recall@k", "recall@100" and "mrr@10". A query that the run lacks, or that found nothing,
    scores 0. Equal scores are ordered as trec_eval does, whatever the run's own order.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in retrieval_metrics(k)}
    for query, judged in qrels.items():
        with np.errstate(over="ignore"):
            scores = {doc_id: np.float32(score) for doc_id, score in run.get(query, {}).items()}
        # trec_eval compares float32, and equal ones by falling id.
        ranking = sorted(scores, key=lambda doc_id: (scores[doc_id], doc_id), reverse=True)
        ranks = [rank for rank, one in enumerate(ranking, start=1) if judged.get(one, 0) > 0]
        relevant = max(1, sum(score > 0 for score in judged.values()))
        found[f"ndcg@{k}"][query] = ndcg(ranking, judged, k)
        found["map"][query] = sum(n / rank for n, rank in enumerate(ranks, start=1)) / relevant
        for cut in (k, 100):
            found[f"recall@{cut}"][query] = sum(rank <= cut for rank in ranks) / relevant
        found["mrr@10"][query] = 1 / ranks[0] if ranks and ranks[0] <= _MRR_CUT else 0.0
    return found
