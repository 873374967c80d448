"""The paper's four claims, and the rule that says of each: holds, does not hold, cannot tell.

``RULE`` is the rule; the report prints it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.study.config import StudyConfig
from benchmarks.study.scores import ALL_TASK_TYPES, TaskTypeTest
from benchmarks.study.words import task_type_title
from embedder.pooling import PoolingOptions
from embedder.variants import get_variant
from retrieval.errors import count_noun

Word = Literal["holds", "does not hold", "cannot tell"]
Kind = Literal["better", "no better", "little gain"]

RULE = (
    "A claim names pairs of designs and task types. Each pair is judged on each task type.",
    '"Better": the claim holds where the difference is above 0 and significant. It does not hold '
    "where the difference is significantly below 0, or where a gain of the margin is excluded.",
    '"No better": the claim does not hold where the difference is significantly above 0. Otherwise '
    "it holds where a gain of the margin is excluded.",
    '"Little gain": the claim holds where a gain of the margin is excluded. It does not hold where '
    "the difference is significant, and the whole interval and every seed lie above the margin.",
    "A gain of the margin is excluded where the whole interval lies below the margin, and so does "
    "the difference of every seed. An interval of zero width, as where both designs score all "
    "items alike, excludes nothing.",
    "In all other cases the data cannot tell. A difference is significant where p is below alpha "
    "after Holm's correction over the tests of all claims, and no seed has the opposite sign.",
    "A claim holds where all of its comparisons do, does not hold where at least one does not, "
    "and otherwise cannot be told.",
)
"""What decides, one paragraph per entry."""

SMALL_PARAMETERS = 1e9
"""The fourth claim is about small bases; the paper's small one has half of this."""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes
    ----------
    pairs : of the paper's models, the one that the claim is about first.
    small_only : whether it is about small bases only.
    """

    number: int
    text: str
    kind: Kind
    pairs: Sequence[tuple[str, str]]
    task_types: Sequence[str]
    small_only: bool = False


CLAIMS = (
    Claim(
        1,
        "Bidirectional attention with a trainable pooling is better in STS and retrieval.",
        "better",
        (("model4", "model1"), ("model5", "model1")),
        ("sts", "retrieval"),
    ),
    Claim(
        2,
        "Neither trainable poolings nor bidirectional attention beat the EOS state under causal "
        "attention in classification and clustering.",
        "no better",
        tuple((f"model{number}", "model1") for number in (2, 3, 4, 5)),
        ("classification", "clustering"),
    ),
    Claim(
        3,
        "Trainable pooling over all layers beats trainable pooling over the last layer in STS and "
        "retrieval.",
        "better",
        (("model3", "model2"), ("model5", "model4")),
        ("sts", "retrieval"),
    ),
    Claim(
        4,
        "On a small base the complex designs gain little.",
        "little gain",
        tuple((f"model{number}", "model1") for number in (2, 3, 4, 5)),
        (ALL_TASK_TYPES,),
        small_only=True,
    ),
)


@dataclass(frozen=True)
class Judgement:
    """One pair on one task type: the word, and the numbers that decide."""

    word: Word
    reason: str


def paper_variants(config: StudyConfig) -> dict[str, str]:
    """Return which of the study's variants are the paper's models: "model1" to its name here."""
    found: dict[str, str] = {}
    for variant in config.variants:
        if variant.options == PoolingOptions() and variant.layers == "all":
            found.setdefault(get_variant(variant.variant).name, variant.name)
    return {name: found[name] for name in sorted(found) if name.startswith("model")}


def claim_pairs(config: StudyConfig) -> list[tuple[str, str, str]]:
    """Return (first, second, task type) of all comparisons that the claims need, by study names."""
    names = paper_variants(config)
    return list(
        dict.fromkeys(
            (names[first], names[second], task_type)
            for claim in CLAIMS
            for first, second in claim.pairs
            for task_type in claim.task_types
            if first in names and second in names
        )
    )


def judge_test(kind: Kind, test: TaskTypeTest, margin: float, alpha: float) -> Judgement:
    """Return what one comparison says about a claim of this kind, by ``RULE``."""
    return Judgement(_RULES[kind](test, margin, alpha), _describe(test))


def judge_claim(
    claim: Claim,
    names: Mapping[str, str],
    tests: Mapping[tuple[str, str, str], TaskTypeTest],
    config: StudyConfig,
    parameters: float,
) -> tuple[Word, list[Judgement]]:
    """Return the verdict on a claim on one base, and what it follows from.

    Parameters
    ----------
    names : see ``paper_variants``.
    tests : (first, second, task type) by the study's names to the corrected test on this base.
    parameters : of the base; NaN where not known.
    """
    if claim.small_only and not parameters < SMALL_PARAMETERS:
        size = "unknown" if math.isnan(parameters) else f"{parameters / 1e9:.1f} billion"
        reason = f"The claim is about bases below a billion parameters; this one's are {size}."
        return "cannot tell", [Judgement("cannot tell", reason)]
    judgements = []
    for first, second in claim.pairs:
        for task_type in claim.task_types:
            missing = [name for name in (first, second) if name not in names]
            test = None if missing else tests.get((names[first], names[second], task_type))
            if test is None:
                what = f"{' and '.join(missing)} is not in the study" if missing else "no score"
                reason = f"{first} against {second}, {task_type}: {what}."
                judgements.append(Judgement("cannot tell", reason))
            else:
                judgements.append(judge_test(claim.kind, test, config.margin, config.alpha))
    words = {one.word for one in judgements}
    if "does not hold" in words:
        return "does not hold", judgements
    return "holds" if words == {"holds"} else "cannot tell", judgements


def _excludes(test: TaskTypeTest, margin: float) -> bool:
    """Whether a gain of the margin is excluded; see ``RULE``."""
    return test.low < test.high and max(test.high, *test.seed_differences) < margin


def _judge_better(test: TaskTypeTest, margin: float, alpha: float) -> Word:
    significant = test.is_significant(alpha)
    if significant and test.difference > 0:
        return "holds"
    worse = significant and test.difference < 0
    return "does not hold" if worse or _excludes(test, margin) else "cannot tell"


def _judge_no_better(test: TaskTypeTest, margin: float, alpha: float) -> Word:
    if test.is_significant(alpha) and test.difference > 0:
        return "does not hold"
    return "holds" if _excludes(test, margin) else "cannot tell"


def _judge_little_gain(test: TaskTypeTest, margin: float, alpha: float) -> Word:
    if _excludes(test, margin):
        return "holds"
    least = min(test.low, *test.seed_differences)
    gains = test.is_significant(alpha) and least > margin
    return "does not hold" if gains else "cannot tell"


_RULES: dict[Kind, Callable[[TaskTypeTest, float, float], Word]] = {
    "better": _judge_better,
    "no better": _judge_no_better,
    "little gain": _judge_little_gain,
}


def _describe(test: TaskTypeTest) -> str:
    seeds = test.seed_differences
    agree = sum(one > 0 for one in seeds)
    p = "no test" if math.isnan(test.p_corrected) else f"corrected p {test.p_corrected:.2g}"
    return (
        f"{test.first} against {test.second}, {task_type_title(test.task_type)}: "
        f"{test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}), {p}, above 0 with "
        f"{agree} of {count_noun(len(seeds), 'seed')}."
    )
