"""Semantic textual similarity: does the cosine of two sentences rank pairs as people do?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.tasks.task import Embed, Scores, Task, TextTaskType
from retrieval.corpus.labelled import StsPairs, read_sts
from retrieval.scores import cosines, is_constant, pearson, spearman


@dataclass(frozen=True)
class StsData(StsPairs):
    """Pairs of sentences and how alike people found them."""

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of pairs."""
        return {"pairs": len(self.scores)}


def load_sts(task: Task, skip_bad: bool) -> StsData:
    """Return the pairs of a .tsv file; raises as ``read_sts``."""
    return StsData(**vars(read_sts(task.path, skip_bad=skip_bad)))


def score_sts(data: StsData, embed: Embed) -> Scores:
    """Return Spearman's ("spearman") and Pearson's ("pearson") correlation of cosine with gold.

    The items are "cosine" and "gold" of each pair. Where all cosines or all gold scores are
    equal a correlation is undefined: both are NaN, and a note says why.
    """
    vectors = embed([*data.first, *data.second])
    pairs = len(data.scores)
    cosine = cosines(vectors[:pairs], vectors[pairs:]).tolist()
    sides = {"gold scores": data.scores, "cosines of this model": cosine}
    return Scores(
        "spearman",
        {"spearman": spearman(cosine, data.scores), "pearson": pearson(cosine, data.scores)},
        [str(number) for number in range(pairs)],
        {"cosine": cosine, "gold": list(data.scores)},
        [
            f"All {what} are equal, so the correlation is undefined."
            for what, values in sides.items()
            if is_constant(values)
        ],
    )


STS = TextTaskType(lambda task: {"pairs": task.path}, load_sts, score_sts, {"protocol": 1})
