"""Sentences on a comparison as a whole: what is missing from it, and what limits it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.scoring.results import Result
from benchmarks.significance import smallest_wilcoxon_p
from benchmarks.significance.comparison import Difference, TaskTypeDifference
from benchmarks.significance.paired import EXACT_ITEMS
from benchmarks.significance.pairs import SIGN_TESTS

if TYPE_CHECKING:
    from benchmarks.significance.compare import CompareConfig

__all__ = ["note_gaps", "note_limits"]

_ITEMS_OF_ONE_SET = {"classification": "draws", "clustering": "splits"}


def note_gaps(
    results: Sequence[Result], metrics: Mapping[tuple[str, str], str], metric: str | None
) -> list[str]:
    """Return what is not compared, and which models are one and the same.

    Parameters
    ----------
    results : all there are.
    metrics : by task and model, what is compared; lacks what is left out.
    metric : the one that was asked for, None for each task's own.
    """
    tasks = list(dict.fromkeys(result.task for result in results))
    compared = [task for task in tasks if any(key[0] == task for key in metrics)]
    notes = []
    left_out = [task for task in tasks if task not in compared]
    if left_out:
        notes.append(f"Left out, since {metric!r} is not among their scores: {', '.join(left_out)}")
    what = "result" if metric is None else f"{metric!r}"
    for model in dict.fromkeys(result.model for result in results):
        missing = [task for task in compared if (task, model) not in metrics]
        if missing:
            notes.append(f"{model} has no {what} on {', '.join(missing)}")
    return notes + _note_equal(results)


def _note_equal(results: Sequence[Result]) -> list[str]:
    """Return which names stand for the same model."""
    names: dict[str, list[str]] = {}
    for result in results:
        same = names.setdefault(result.fingerprint.digest, [])
        if result.model not in same:
            same.append(result.model)
    return [f"These are one model: {', '.join(same)}" for same in names.values() if len(same) > 1]


def note_limits(
    differences: Sequence[Difference],
    task_types: Sequence[TaskTypeDifference],
    config: CompareConfig,
) -> list[str]:
    """Return what a reader must not conclude, and what keeps p-values from being low enough."""
    tested = [one for one in differences if not math.isnan(one.p)]
    count = len(tested) + sum(not math.isnan(one.p) for one in task_types)
    notes = [
        f"{task_type.capitalize()} is tested over {items} of one data set, so a significant "
        f"difference holds for that data set only"
        for task_type, items in _ITEMS_OF_ONE_SET.items()
        if any(one.task_type == task_type for one in tested)
    ]
    if config.correction == "holm":
        notes += _note_few_items(tested, count, config)
        notes += _note_few_resamples(tested, count, config)
    return notes


def _note_few_items(
    tested: Sequence[Difference], count: int, config: CompareConfig
) -> Iterator[str]:
    """Yield for which tasks no difference, however large, is sure to pass Holm's correction."""
    if config.test not in SIGN_TESTS:
        return
    few: dict[int, list[str]] = {}
    for one in tested:
        least = smallest_wilcoxon_p(one.items)
        if one.task_type != "sts" and least < config.alpha <= least * count:
            few.setdefault(one.items, []).append(one.task)
    for items, tasks in sorted(few.items()):
        yield (
            f"{items} items give no p below {smallest_wilcoxon_p(items):.2g}, and Holm's "
            f"correction of {count:,} tests can leave that above {config.alpha:g} however large "
            f"the difference ({', '.join(dict.fromkeys(tasks))}). --test t has no such bound"
        )


def _note_few_resamples(
    tested: Sequence[Difference], count: int, config: CompareConfig
) -> Iterator[str]:
    """Yield which number of resamples is too low for Holm's correction of so many tests."""
    used = {
        "resamples": config.test == "randomisation"
        and any(one.task_type != "sts" and one.items > EXACT_ITEMS for one in tested),
        "bootstrap_resamples": any(one.task_type == "sts" for one in tested),
    }
    for name in [name for name, is_used in used.items() if is_used]:
        resamples: int = getattr(config, name)
        least = count / (resamples + 1)
        if least >= config.alpha:
            enough = 10 ** math.ceil(math.log10(count / config.alpha + 1))
            yield (
                f"With {resamples:,} {name.replace('_', ' ')} and {count:,} tests the smallest "
                f"corrected p can stay at {min(1.0, least):.2g} for want of resamples. Type: "
                f"--{name.replace('_', '-')} {enough}"
            )
