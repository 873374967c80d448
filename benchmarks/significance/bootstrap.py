"""Bootstraps of paired systems: resampled items, intervals, and a test for Spearman's correlation.

Systems that are resampled in one call see the same items in each resample: the difference of two
rows of what it returns is a paired bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from retrieval.scores import Doubles

BOOTSTRAP_RESAMPLES = 10_000
"""Fewer than random signs get: each resample of an STS task ranks every pair anew, and 10,000 are
enough for the ends of a 95% interval. The smallest p is 0.0001."""

_BLOCK_VALUES = 1 << 16
"""Values held at a time, whatever the number of resamples and items (0.5 MiB of float64)."""

_TOLERANCE = 1e-12


def bootstrap_means(
    scores: npt.ArrayLike, *, resamples: int = BOOTSTRAP_RESAMPLES, seed: int = 0
) -> Doubles:
    """Return the mean score of every system on resampled items.

    Parameters
    ----------
    scores : (S, n) numbers, S systems on n items.
    resamples : R, how often n items are drawn with replacement.
    seed : of the draws.

    Returns
    -------
    (S, R) float64.

    Raises
    ------
    ValueError : not two-dimensional, no item, or not finite.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife", Annals of Statistics
    7, 1-26.
    """
    rows = _as_rows(scores)
    means = np.empty((len(rows), resamples))
    for part, drawn in _draw_items(rows.shape[1], resamples, seed):
        for row, out in zip(rows, means, strict=True):
            out[part] = row[drawn].mean(axis=1)
    return means


def bootstrap_spearman(
    scores: npt.ArrayLike,
    gold: npt.ArrayLike,
    *,
    resamples: int = BOOTSTRAP_RESAMPLES,
    seed: int = 0,
) -> Doubles:
    """Return every system's rank correlation with the gold scores on resampled pairs.

    The pairs are ranked anew in each resample, with average ranks for ties.

    Parameters
    ----------
    scores : (S, n) numbers, such as cosines: S systems on n pairs.
    gold : (n,) numbers, the judgements of the same pairs.
    resamples, seed : as in ``bootstrap_means``.

    Returns
    -------
    (S, R) float64; NaN where all drawn pairs have one gold score, or one score of the system.

    Raises
    ------
    ValueError : shapes that do not belong together, no pair, or not finite.
    """
    rows = _as_rows(scores)
    truth = _as_rows(np.atleast_2d(gold))[0]
    if len(truth) != rows.shape[1]:
        raise ValueError(f"gold has {len(truth)} values for {rows.shape[1]} items")
    by_gold = np.argsort(truth, kind="stable")
    gold_ranks = _Ranks(truth[by_gold])
    systems = [_Ranks(row[by_gold]) for row in rows]
    items = len(truth)
    correlations = np.full((len(rows), resamples), np.nan)
    for part, drawn in _draw_items(items, resamples, seed):
        counts = _count(drawn, items)
        expected = gold_ranks(counts)
        expected_spread = np.einsum("ij,ij,ij->i", counts, expected, expected)
        for system, out in zip(systems, correlations, strict=True):
            here = counts[:, system.order]
            ranks = system(here)
            weighted = here * ranks
            shared = np.einsum("ij,ij->i", weighted, expected[:, system.order])
            spread = np.einsum("ij,ij->i", weighted, ranks)
            spread = np.sqrt(spread * expected_spread)
            np.divide(shared, spread, out=out[part], where=spread > 0)
    return correlations


def percentile_interval(samples: npt.ArrayLike, alpha: float) -> tuple[float, float]:
    """Return the ends of the bootstrap percentile interval at confidence ``1 - alpha``.

    Parameters
    ----------
    samples : (R,) of one statistic, such as the difference of two rows; NaN are left out.
    alpha : how much lies outside, half at each end.

    Returns
    -------
    low and high; NaN where no sample is defined.

    Source: Efron 1981, "Nonparametric standard errors and confidence intervals", Canadian
    Journal of Statistics 9, 139-158.
    """
    values = np.asarray(samples, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def shifted_bootstrap_p(observed: float, samples: npt.ArrayLike) -> float:
    """Return the two-sided p-value of "the statistic is zero", from its bootstrap distribution.

    The bootstrap scatters around the observed value, not around the null hypothesis, so it is
    shifted by the observed value: p = (r + 1) / (R + 1), where in r resamples
    ``|sample - observed| >= |observed|``. Never 0.

    Parameters
    ----------
    observed : the statistic of the data.
    samples : (R,) of the same statistic; an undefined one (NaN) counts as extreme, which can
        only make p larger.

    Returns
    -------
    p in (0, 1]; NaN where ``observed`` is.

    Source: Hall and Wilson 1991, "Two guidelines for bootstrap hypothesis testing", Biometrics
    47, 757-762 (the first guideline); the "bootstrap shift method" of Smucker, Allan and
    Carterette, CIKM 2007, except that they shift by the mean of the samples.
    """
    if np.isnan(observed):
        return float("nan")
    values = np.asarray(samples, dtype=np.float64)
    ordinary = np.abs(values - observed) < abs(observed) - _TOLERANCE
    return (values.size - int(np.count_nonzero(ordinary)) + 1) / (values.size + 1)


class _Ranks:
    """Ranks the values of one variable inside resamples that are given as counts.

    Parameters
    ----------
    values : (n,) numbers.
    """

    def __init__(self, values: Doubles) -> None:
        self.order = np.argsort(values, kind="stable")
        ascending = values[self.order]
        new = np.concatenate([[True], ascending[1:] != ascending[:-1]])
        self._starts = np.flatnonzero(new)
        self._group = np.cumsum(new) - 1

    def __call__(self, counts: Doubles) -> Doubles:
        """Return 2 x (average rank) - (n + 1), so that 0 is the mean of a resample.

        Parameters
        ----------
        counts : (B, n), how often each value was drawn, the values in ascending order; whole
            numbers, which float64 adds without rounding.

        Returns
        -------
        (B, n), the values in ascending order.
        """
        ties = len(self._starts) < counts.shape[1]
        sizes = np.add.reduceat(counts, self._starts, axis=1) if ties else counts
        # A group of s equal values that ends at rank e has ranks e-s+1 to e, e - (s-1)/2 on
        # average.
        ranks: Doubles = 2 * np.cumsum(sizes, axis=1) - sizes - counts.shape[1]
        return ranks[:, self._group] if ties else ranks


def _draw_items(
    items: int, resamples: int, seed: int
) -> Iterator[tuple[slice, npt.NDArray[np.unsignedinteger]]]:
    """Yield the resamples of a block, and the items drawn in each, (B, n)."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be 1 or more")
    generator = np.random.default_rng(seed)
    kind = np.uint16 if items <= 1 << 16 else np.uint32
    block = max(1, _BLOCK_VALUES // items)
    for start in range(0, resamples, block):
        part = slice(start, min(start + block, resamples))
        yield part, generator.integers(0, items, (part.stop - start, items), dtype=kind)


def _count(drawn: npt.NDArray[np.unsignedinteger], items: int) -> Doubles:
    """Return how often each item was drawn in each resample, (B, n)."""
    rows = np.arange(len(drawn))[:, None] * items
    counts = np.bincount((drawn + rows).ravel(), minlength=len(drawn) * items)
    return counts.reshape(len(drawn), items).astype(np.float64)


def _as_rows(scores: npt.ArrayLike) -> Doubles:
    rows = np.asarray(scores, dtype=np.float64)
    if rows.ndim != 2 or rows.size == 0 or not np.isfinite(rows).all():
        raise ValueError("scores are rows of equal length with at least one finite number")
    return rows
