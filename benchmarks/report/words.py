"""What the report says in words: how the tests were made, and values that differ or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.significance.comparison import Comparison

__all__ = ["describe_tests", "describe_values", "number_text", "sentence"]

_TESTS = {
    "randomisation": "a paired randomisation test (Fisher) of the mean difference per item, with "
    "{resamples:,} resamples; p counts the observed table as one of them, so it is never zero",
    "wilcoxon": "a Wilcoxon signed-rank test of the differences per item",
    "t": "a paired t test of the differences per item",
}
_CORRECTIONS = {
    "holm": "Holm's method, which bounds the chance of one false difference in the whole table",
    "benjamini-hochberg": "the method of Benjamini and Hochberg, which bounds the expected share "
    "of false differences among those called significant",
}


def describe_tests(comparison: Comparison) -> list[str]:
    """Return sentences on how the p-values and intervals of a comparison were made."""
    if not comparison.differences:
        return ["No two models were compared, so nothing was tested."]
    test = _TESTS.get(comparison.test, comparison.test).format(resamples=comparison.resamples)
    correction = _CORRECTIONS.get(comparison.correction, comparison.correction)
    pairs = (
        f"Each model was compared with {comparison.baseline}"
        if comparison.baseline
        else "All pairs of models were compared"
    )
    return [
        f"{pairs} on every task that both have, by {test}.",
        "Spearman's correlation has no value for one pair of sentences, so STS tasks have a "
        f"paired bootstrap of the difference, with {comparison.bootstrap_resamples:,} resamples.",
        "The mean over the tasks of a type has a Wilcoxon signed-rank test of the task scores.",
        f"The p-values of all tasks and task types are corrected together by {correction}.",
        f"A difference is significant where the corrected p is below {comparison.alpha:g}. "
        f"Intervals are bootstrap intervals of the difference at "
        f"{100 * (1 - comparison.alpha):g}%, not corrected, with "
        f"{comparison.bootstrap_resamples:,} resamples. The seed is {comparison.seed}.",
    ]


def describe_values(values: Sequence[Any]) -> str:
    """Return one value, or every different one with " / " between."""
    return " / ".join(dict.fromkeys(number_text(value) for value in values))


def sentence(text: str) -> str:
    """Return a note with a full stop at its end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def number_text(value: Any) -> str:
    """Return a value as text, whole numbers with separators between thousands."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
