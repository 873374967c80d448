"""The comparison of a single model, which has nothing to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.comparison import Comparison
from benchmarks.results import Result

if TYPE_CHECKING:
    from benchmarks.comparing import CompareConfig

__all__ = ["compare_nothing"]


def compare_nothing(results: Sequence[Result], config: CompareConfig) -> Comparison:
    """Return a comparison without a pair, so that the scores of one model make a report too."""
    return Comparison(
        alpha=config.alpha,
        test=config.test,
        correction=config.correction,
        baseline="",
        resamples=config.resamples,
        seed=config.seed,
        models=tuple(dict.fromkeys(one.model for one in results)),
        tasks=tuple(dict.fromkeys(one.task for one in results)),
        differences=(),
        families=(),
        notes=("One model has results, so there was no difference to test.",),
        bootstrap_resamples=config.bootstrap_resamples,
    )
