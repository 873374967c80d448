"""How many items or tasks it takes to find a difference, with the spread that was seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist, median

from benchmarks.significance.comparison import Comparison, Difference

POWER = 0.8
"""The chance of finding the difference that is planned for, the field's usual one (Cohen 1988)."""


@dataclass(frozen=True)
class PowerRow:
    """What the comparisons of one task, or those over all tasks, could find.

    Attributes
    ----------
    where : the task; "" for all tasks.
    task_type : of the task; "" for all tasks.
    items : there are now: queries, pairs, texts, splits, or tasks.
    deviation : standard deviation of the paired differences, the median over the pairs of models.
    detectable : the smallest difference found with a chance of ``POWER`` now, after correction.
    needed, needed_corrected : items for the wanted difference, in a single test, and where as
        many tests are corrected together as here.
    tests : that are corrected together.
    """

    where: str
    task_type: str
    items: int
    deviation: float
    detectable: float
    needed: int
    needed_corrected: int
    tests: int


def plan_power(comparison: Comparison, difference: float) -> list[PowerRow]:
    """Return a row for each task with a spread, and one for all tasks.

    Two-sided, n = ((z(1 - alpha / 2) + z(power)) x deviation / difference)**2, with alpha divided
    by the number of tests for the corrected number (Bonferroni's bound, a little above Holm's).
    For Spearman's correlation the deviation is that of one pair's share in it: the bootstrap's
    standard error times sqrt(n). For classification the ten draws are held as they are.

    Parameters
    ----------
    comparison : with all pairs.
    difference : the one to be found, above 0.

    Raises
    ------
    ValueError : ``difference`` is not above 0.

    Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", chapter 2;
    Sakai 2018, "Laboratory Experiments in Information Retrieval", chapter 6.
    """
    if not difference > 0:
        raise ValueError(f"difference is {difference}; it must be above 0")
    return list(_rows(comparison, difference))


def _rows(comparison: Comparison, difference: float) -> Iterator[PowerRow]:
    alpha, whole = comparison.config.alpha, comparison.config.family == "all"
    tested = [one for one in comparison.differences if not math.isnan(one.p)]
    for task in comparison.tasks:
        own = [one for one in tested if one.task == task]
        spreads = [spread for one in own if (spread := _deviation(one, alpha)) > 0]
        if spreads:
            kind, items = own[0].task_type, round(median(one.items for one in own))
            tests = sum(whole or one.task_type == kind for one in tested)
            yield _row(task, kind, items, median(spreads), difference, alpha, tests)
    ranking = comparison.ranking
    if ranking is not None:
        spreads = [one.deviation for one in ranking.tests if one.deviation > 0]
        if spreads:
            count, tests = len(ranking.tasks), len(ranking.tests)
            yield _row("", "", count, median(spreads), difference, alpha, tests)


def _deviation(one: Difference, alpha: float) -> float:
    """Return the standard deviation of a pair's differences; 0 where it is not known."""
    if math.isfinite(one.effect_size) and one.effect_size != 0:
        return abs(one.difference / one.effect_size)
    if one.task_type == "sts" and math.isfinite(one.high - one.low):
        error = (one.high - one.low) / (2 * NormalDist().inv_cdf(1 - alpha / 2))
        return error * math.sqrt(one.items)
    return 0.0


def _row(
    where: str,
    task_type: str,
    items: int,
    deviation: float,
    difference: float,
    alpha: float,
    tests: int,
) -> PowerRow:
    normal = NormalDist()
    # How many standard errors a difference must measure to be found.
    single, corrected = (
        normal.inv_cdf(1 - alpha / count / 2) + normal.inv_cdf(POWER) for count in (1, tests)
    )
    return PowerRow(
        where=where,
        task_type=task_type,
        items=items,
        deviation=deviation,
        detectable=corrected * deviation / math.sqrt(items),
        needed=_needed(single, deviation, difference),
        needed_corrected=_needed(corrected, deviation, difference),
        tests=tests,
    )


def _needed(reach: float, deviation: float, difference: float) -> int:
    return max(2, math.ceil((reach * deviation / difference) ** 2))
