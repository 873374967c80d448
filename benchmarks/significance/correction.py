"""Corrections of p-values for the number of tests.

Both pass over NaN, a test that could not be made: it stays NaN and the
other p-values are what they would be without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from retrieval.scores import Doubles


def adjust_holm(p_values: npt.ArrayLike) -> Doubles:
    """Return p-values that bound the chance of even one false discovery, by Holm's step-down.

    The k-th smallest of m is multiplied by m - k + 1; none may be below the one before it or
    above 1.

    Parameters
    ----------
    p_values : (m,), between 0 and 1, or NaN.

    Returns
    -------
    (m,) float64, in the order that came.

    Raises
    ------
    ValueError : not one-dimensional, or a value outside 0 to 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, 65-70.
    """
    return _adjust(p_values, lambda p: np.maximum.accumulate(p * np.arange(len(p), 0, -1)))


def adjust_benjamini_hochberg(p_values: npt.ArrayLike) -> Doubles:
    """Return p-values that bound the expected share of false discoveries among all discoveries.

    The k-th smallest of m is multiplied by m / k; none may be above the one after it or 1.

    Parameters, Returns, Raises : as ``adjust_holm``.

    Source: Benjamini and Hochberg 1995, "Controlling the false discovery rate", Journal of the
    Royal Statistical Society B 57, 289-300. It holds for independent tests and for positive
    dependence; differences that share a model are not all of that kind.
    """

    def step(ascending: Doubles) -> Doubles:
        scaled = ascending * (len(ascending) / np.arange(1, len(ascending) + 1))
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _adjust(p_values, step)


def _adjust(p_values: npt.ArrayLike, step: Callable[[Doubles], Doubles]) -> Doubles:
    """Return a copy in which ``step`` has changed the ascending ones, at most 1; NaN stays."""
    values = np.array(p_values, dtype=np.float64)
    present = np.flatnonzero(~np.isnan(values))
    if values.ndim != 1 or np.any((values[present] < 0) | (values[present] > 1)):
        raise ValueError("p-values are one row of numbers between 0 and 1, or NaN")
    places = present[np.argsort(values[present], kind="stable")]
    values[places] = np.minimum(step(values[places]), 1.0)
    return values


CORRECTIONS: Mapping[str, Callable[[Sequence[float]], Doubles]] = {
    "holm": adjust_holm,
    "benjamini-hochberg": adjust_benjamini_hochberg,
}
