"""Two-sided tests of paired scores: is the mean, or the middle, of the differences zero?

All take the differences of two systems item by item. Under the null hypothesis the two are
exchangeable on every item, so each difference might as well have had the other sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.optional import import_optional
from retrieval.scores import Doubles, average_ranks

RESAMPLES = 100_000
"""So many that chance moves p = 0.05 by 0.0007 (one standard error) and that the smallest p,
0.00001, outlives Holm's correction of 4,999 tests at 0.05. 300 queries take 0.05 seconds."""

EXACT_ITEMS = 16
"""Up to here all 2**16 = 65,536 assignments of signs are looked at, in place of random ones."""

_TOLERANCE = 1e-9
"""Of the sum of absolute differences: sums that differ by less are one and the same number added
up in another order. Counting too many as extreme can only make p larger."""

TIE_DECIMALS = 12
"""Differences are rounded to this before they are ranked, so that 0.3 - 0.2 ties with 0.1."""

_BLOCK = 1 << 14


def randomisation_test(
    differences: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Return the two-sided p-value of Fisher's randomisation test of a mean difference of zero.

    The statistic is the absolute sum of the differences, the reference distribution that sum
    under random signs. Exact, over all 2**n assignments, where n differences are not zero and n
    is at most ``EXACT_ITEMS`` or 2**n at most ``resamples``. Else (r + 1) / (resamples + 1),
    where r random assignments are at least as extreme as the data: never 0, and a valid p-value
    for any number of resamples. Memory does not grow with ``resamples`` x n.

    Parameters
    ----------
    differences : (n,) numbers, first system minus second, one per query.
    resamples : random assignments of signs, where not all are looked at.
    seed : of the random assignments.

    Returns
    -------
    p in (0, 1]; 1 where every difference is 0.

    Raises
    ------
    ValueError : not one row of at least one finite number, or resamples below 1.

    Source: Smucker, Allan and Carterette 2007, "A comparison of statistical significance tests
    for information retrieval evaluation", CIKM, 623-632. The + 1: Davison and Hinkley 1997,
    "Bootstrap Methods and their Application", section 4.2.
    """
    return _flip_signs(_as_differences(differences), resamples, seed)


def wilcoxon_test(differences: npt.ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test.

    Zero differences are ranked with the others and then left out (Pratt's way). Dropping them
    before ranking, which is Wilcoxon's own way, lets the p-value depend on how the other
    differences compare as if the items on which the systems are equal did not exist; retrieval
    has many such queries. Ties share their average rank. Exact where at most ``EXACT_ITEMS``
    differences are not zero, ties or not; beyond, what SciPy chooses: exact up to 50 without
    ties or zeros, else the normal approximation.

    Parameters
    ----------
    differences : (n,) numbers; two closer than 1e-12 are a tie.

    Returns
    -------
    p in [0, 1]; 1 where every difference is 0.

    Raises
    ------
    ValueError : not one row of at least one finite number.
    MissingDependencyError : SciPy is needed and not installed.

    Source: Wilcoxon 1945, Biometrics Bulletin 1, 80-83; Pratt 1959, "Remarks on zeros and ties
    in the Wilcoxon signed rank procedures", JASA 54, 655-667.
    """
    values = np.round(_as_differences(differences), TIE_DECIMALS)
    untied = int(np.count_nonzero(values))
    if untied <= EXACT_ITEMS:
        return _flip_signs(np.sign(values) * average_ranks(np.abs(values)), 1, 0)
    stats = import_optional("scipy.stats", "This test")
    return float(stats.wilcoxon(values, zero_method="pratt", method="auto").pvalue)


def smallest_wilcoxon_p(items: int) -> float:
    """Return the least two-sided p-value that Wilcoxon's test of so many items can give.

    One assignment of signs in 2**n, and its mirror image, is the most extreme: 2 / 2**n, so 5
    tasks never get below 0.0625. The randomisation test has the same bound.
    """
    return min(1.0, 2.0 ** (1 - items))


def paired_t_test(differences: npt.ArrayLike) -> float:
    """Return the two-sided p-value of Student's t-test of a mean difference of zero.

    Parameters
    ----------
    differences : (n,) numbers.

    Returns
    -------
    p in [0, 1]; 1 where every difference is 0. NaN where t is undefined: one difference, or all
    equal and not 0, which leaves no spread to measure the mean against.

    Raises
    ------
    ValueError : not one row of at least one finite number.
    MissingDependencyError : SciPy is not installed.

    Source: Student 1908, Biometrika 6, 1-25.
    """
    values = _as_differences(differences)
    if not values.any():
        return 1.0
    if _is_constant(values):
        return float("nan")
    stats = import_optional("scipy.stats", "This test")
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def effect_size(differences: npt.ArrayLike) -> float:
    """Return Cohen's d for pairs: the mean difference over its standard deviation (n - 1).

    Parameters
    ----------
    differences : (n,) numbers.

    Returns
    -------
    d_z; 0 where every difference is 0, NaN where they are equal and not 0, or only one.

    Raises
    ------
    ValueError : not one row of at least one finite number.

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.3.5.
    """
    values = _as_differences(differences)
    if not values.any():
        return 0.0
    if _is_constant(values):
        return float("nan")
    return float(values.mean() / values.std(ddof=1))


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


def _as_differences(differences: npt.ArrayLike) -> Doubles:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError("differences are one row of at least one finite number")
    return values


def _is_constant(values: Doubles) -> bool:
    """Whether there is no spread beyond rounding."""
    return float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max())


def _flip_signs(values: Doubles, resamples: int, seed: int) -> float:
    """Return how often random signs make the absolute sum at least as large."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; it must be 1 or more")
    moving = values[values != 0]  # the sign of a zero changes nothing
    least = abs(moving.sum()) - _TOLERANCE * np.abs(moving).sum()
    if len(moving) <= EXACT_ITEMS or 1 << len(moving) <= resamples:
        sums = np.zeros(1)
        for value in moving:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= least))
    generator = np.random.default_rng(seed)
    tables = _sign_tables(moving)
    extreme = 0
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        total = np.zeros(size)
        for table in tables:
            total += table[generator.integers(0, 256, size, dtype=np.uint8)]
        extreme += int(np.count_nonzero(np.abs(total) >= least))
    return (extreme + 1) / (resamples + 1)


def _sign_tables(values: Doubles) -> Doubles:
    """Return the sums of every 8 values under all 256 assignments of signs, (n / 8, 256).

    One random byte then settles the signs of 8 values with one look-up.
    """
    eights = np.zeros((-(-len(values) // 8), 8))
    eights.flat[: len(values)] = values
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    tables: Doubles = eights @ (1.0 - 2.0 * bits).T
    return tables


TESTS: Mapping[str, Callable[[Doubles, int, int], float]] = {
    "randomisation": lambda differences, resamples, seed: randomisation_test(
        differences, resamples=resamples, seed=seed
    ),
    "wilcoxon": lambda differences, resamples, seed: wilcoxon_test(differences),
    "t": lambda differences, resamples, seed: paired_t_test(differences),
}
"""By name: differences (n,), resamples and seed to a two-sided p-value."""

SIGN_TESTS = ("randomisation", "wilcoxon")
"""The tests whose p-values cannot be below ``smallest_wilcoxon_p`` of the number of items."""
