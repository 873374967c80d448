"""The measures that training and benchmarks share: cosine, correlations, nDCG."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from retrieval.protocols import Vectors

Id = TypeVar("Id", bound=Hashable)

Doubles: TypeAlias = npt.NDArray[np.float64]
"""Float64 of any shape."""

_NOISE = 1e-6
"""What rounding in float32 may add to equal cosines, relative to the largest."""


def cosines(left: npt.ArrayLike, right: npt.ArrayLike) -> Doubles:
    """Return the cosine of each row of two arrays (N, D), float64 (N,); 0 for a zero vector."""
    a, b = (np.asarray(rows, dtype=np.float64) for rows in (left, right))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    found: Doubles = np.zeros_like(products)
    np.divide(products, lengths, out=found, where=lengths > 0)
    return found


def unit_rows(vectors: npt.ArrayLike) -> Vectors:
    """Return the rows of (N, D) at length 1, float32; rows of zeros stay."""
    exact = np.array(vectors, dtype=np.float64)  # whose squares cannot overflow
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    exact /= np.where(lengths > 0, lengths, 1.0)
    return exact.astype(np.float32)


def is_constant(values: npt.ArrayLike) -> bool:
    """Whether all values are one number, but for the rounding of float32."""
    array = np.asarray(values, dtype=np.float64)
    return bool(np.ptp(array) <= _NOISE * max(1.0, float(np.abs(array).max())))


def pearson(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the linear correlation of two rows of (n,) finite numbers, n >= 1.

    NaN where a side is constant (see ``is_constant``): then it is undefined.

    Raises
    ------
    ValueError : not two rows of equal length.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"expected two rows of equal length, got {a.shape} and {b.shape}")
    if is_constant(a) or is_constant(b):
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    # Rounding may lead a hair beyond 1.
    return float(np.clip(a @ b / math.sqrt(float(a @ a) * float(b @ b)), -1.0, 1.0))


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the rank correlation of two rows of (n,) finite numbers; ties share their mean rank.

    NaN where a side is constant (see ``is_constant``), as in scipy and MTEB.

    Raises
    ------
    ValueError : not two rows of equal length.

    Source: Spearman 1904, American Journal of Psychology 15, 72-101.
    """
    if is_constant(first) or is_constant(second):
        return math.nan
    return pearson(average_ranks(first), average_ranks(second))


def ndcg(ranking: Iterable[Id], judged: Mapping[Id, int], k: int) -> float:
    """Return nDCG@k of one query: gain is the judgement, discount log2(rank + 1), as in trec_eval.

    Parameters
    ----------
    ranking : the ids that were found, best first.
    judged : id to judgement; 0 or below has no gain.

    Returns
    -------
    0 to 1; 0 where nothing has a gain.
    """
    ideal = _discounted(sorted((max(gain, 0) for gain in judged.values()), reverse=True)[:k])
    found = _discounted(max(judged.get(one, 0), 0) for one in islice(ranking, k))
    return found / ideal if ideal else 0.0


def _discounted(gains: Iterable[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def average_ranks(values: npt.ArrayLike) -> Doubles:
    """Return ranks from 1, (n,) float64; equal values share the mean of theirs."""
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ranks: Doubles = (np.cumsum(count) - (count - 1) / 2)[place]
    return ranks
