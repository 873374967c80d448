"""A test of differences that vary with two things at once: the test items, and the draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.optional import import_optional

__all__ = ["CrossedTest", "crossed_test"]


@dataclass(frozen=True)
class CrossedTest:
    """Whether the mean of a table of differences, items by draws, is zero.

    Attributes
    ----------
    p : two-sided, in [0, 1]; NaN where all differences are equal and not 0.
    half_width : of the interval around the mean at confidence ``1 - alpha``; NaN where p is.
    """

    p: float
    half_width: float


def crossed_test(
    by_item: npt.ArrayLike, by_draw: npt.ArrayLike, *, alpha: float = 0.05
) -> CrossedTest:
    """Return the test of the mean difference, with items and draws both as random factors.

    A classifier that is trained on each of D draws and tested on all N items gives a table of
    differences, N by D; its row means and column means are all that this needs. The statistic is
    mean / sqrt(var(rows) / N + var(columns) / D) with Satterthwaite's degrees of freedom: its
    square is Clark's min F', which counts what is left over twice and so errs on the safe side.

    Parameters
    ----------
    by_item : (N,) mean over the draws of each item's difference; empty where the score has no
        value for one item, such as macro F1: then items are no factor.
    by_draw : (D,) mean over the items of each draw's difference.
    alpha : what the interval leaves outside.

    Raises
    ------
    ValueError : no draw, or a number that is not finite.
    MissingDependencyError : SciPy is not installed.

    Source: Clark 1973, "The language-as-fixed-effect fallacy", Journal of Verbal Learning and
    Verbal Behavior 12, 335-359; Satterthwaite 1946, Biometrics Bulletin 2, 110-114. That the
    sum of both variances is conservative: Owen 2007, "The pigeonhole bootstrap", Annals of
    Applied Statistics 1, 386-411.
    """
    factors = [np.asarray(one, dtype=np.float64) for one in (by_item, by_draw)]
    if not factors[1].size or not all(np.isfinite(one).all() for one in factors):
        raise ValueError("by_draw is one or more numbers, and all are finite")
    mean = float((factors[0] if factors[0].size else factors[1]).mean())
    parts = [(float(one.var(ddof=1)) / one.size, one.size - 1) for one in factors if one.size > 1]
    variance = sum(part for part, _ in parts)
    if variance <= (1e-12 * abs(mean)) ** 2:
        return CrossedTest(1.0, 0.0) if abs(mean) < 1e-12 else CrossedTest(np.nan, np.nan)
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    student = import_optional("scipy.stats", "Testing classification").t
    error = variance**0.5
    return CrossedTest(
        float(2 * student.sf(abs(mean) / error, freedom)),
        float(student.ppf(1 - alpha / 2, freedom) * error),
    )
