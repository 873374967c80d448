"""How much of the true top 10 an approximate index finds."""

from __future__ import annotations

import numpy as np

from indexes.index import StoredIndex

__all__ = ["RECALL_K", "RECALL_QUERIES", "measure_recall"]

RECALL_K = 10
RECALL_QUERIES = 200
BATCH = 50


def measure_recall(index: StoredIndex, *, queries: int = RECALL_QUERIES, seed: int = 0) -> float:
    """Return recall@10 against exact search, 0 to 1, with stored vectors as queries.

    A document is no answer to itself, so 11 are asked for and it is left out. What ties with the
    10th best score counts as found. Documents are easier queries than questions are, so this is
    an upper bound for most users.
    """
    live = np.arange(len(index.stored), dtype=np.int64)
    if index.rows.everything.mask is not None:
        live = live[index.rows.everything.mask]
    if len(live) < 2:
        return 1.0
    count = min(queries, len(live))
    asked = np.sort(np.random.default_rng(seed).choice(live, count, replace=False))
    k = min(RECALL_K + 1, len(live))
    exact, found_all = index.as_exact(), 0
    for start in range(0, count, BATCH):
        rows = asked[start : start + BATCH]
        vectors = index.stored.rows(rows)
        truth, answers = exact.find(vectors, k), index.find(vectors, k)
        for row, (scores, of), (given, places) in zip(rows, truth, answers, strict=True):
            threshold = np.sort(scores[of != row])[-(k - 1)]
            others = given[places != row]
            found_all += min(k - 1, int(np.count_nonzero(others >= threshold)))
    return found_all / (count * (k - 1))
