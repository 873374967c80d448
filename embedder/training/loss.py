"""InfoNCE over in-batch and hard negatives, as functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["info_nce", "known_matches"]


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    *,
    scale: float,
    masked: Tensor | None = None,
    dimensions: Sequence[int] = (),
    symmetric: bool = False,
) -> Tensor:
    """Return the mean over queries of the cross-entropy of their own candidate, a scalar.

    The logit of query i and candidate j is ``scale * cosine``; candidate i is the right one for
    query i, every other one a negative (arXiv 1807.03748, equation 4).

    Parameters
    ----------
    queries : (Q, D), of any length.
    candidates : (C, D) with C >= Q: the positives in the order of the queries, then negatives.
    masked : (Q, C) bool, True where a candidate is left out for a query; never its own.
    dimensions : Matryoshka (arXiv 2205.13147): the loss is averaged over vectors cut to their
        first so many coordinates and then normalised; empty for the whole vectors only.
    symmetric : average with the loss of each positive looking for its query.

    Raises
    ------
    ValueError : fewer candidates than queries.
    """
    if candidates.shape[0] < queries.shape[0]:
        raise ValueError(f"{queries.shape[0]} queries have {candidates.shape[0]} candidates")
    losses = [
        _one_dimension(queries[:, :size], candidates[:, :size], scale, masked, symmetric)
        for size in dimensions or (queries.shape[1],)
    ]
    return torch.stack(losses).mean()


def _one_dimension(
    queries: Tensor, candidates: Tensor, scale: float, masked: Tensor | None, symmetric: bool
) -> Tensor:
    rows = queries.shape[0]
    left = F.normalize(queries.float(), dim=-1)
    right = F.normalize(candidates.float(), dim=-1)
    logits = scale * left @ right.T
    if masked is not None:
        logits = logits.masked_fill(masked, float("-inf"))
    target = torch.arange(rows, device=logits.device)
    loss = F.cross_entropy(logits, target)
    if symmetric:
        loss = (loss + F.cross_entropy(logits[:, :rows].T, target)) / 2
    return loss


def known_matches(
    queries: Sequence[str], positives: Sequence[str], negatives: Sequence[str] = ()
) -> Tensor:
    """Return (Q, Q + N) bool: which candidates must not count as negatives of which query.

    The candidates are the positives, then the negatives. Left out for a query are texts equal to
    one of its positives in this batch (a repeated query has several) and to the query itself.
    A query's own place is never left out. Blanks around a text do not count.
    """
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(text.strip(), len(numbers))

    asked = [number(text) for text in queries]
    offered = [number(text) for text in [*positives, *negatives]]
    places: dict[int, list[int]] = {}
    for place, text in enumerate(offered):
        places.setdefault(text, []).append(place)
    right: dict[int, set[int]] = {}
    for query, positive in zip(asked, offered, strict=False):
        right.setdefault(query, {query}).add(positive)
    masked = torch.zeros(len(queries), len(offered), dtype=torch.bool)
    for row, query in enumerate(asked):
        for text in right[query]:
            masked[row, places.get(text, [])] = True
        masked[row, row] = False
    return masked
