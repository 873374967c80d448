"""What comparing two models finds, and what shows without encoding anything again. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedder.conform.http import RefusedError
from embedder.conform.suspects import compare, median
from embedder.conform.texts import KINDS, Sample
from retrieval.errors import EndpointError
from retrieval.protocols import Mask, Progress, Vectors
from retrieval.scores import Doubles

LEAST_COSINE = 0.9999
"""Below this cosine two vectors of a text are not the same."""
_LENGTH_TOLERANCE = 0.01
_ZERO = 1e-12


class Other(Protocol):
    """The other model: an endpoint, or one that runs here."""

    name: str

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D) of texts sent together.

        Raises
        ------
        RefusedError : it does not take these texts.
        """


@dataclass(frozen=True)
class KindScores:
    """The texts of one kind.

    Attributes
    ----------
    texts, refused : how many there are, and how many of them the other model does not take.
    least, median : cosines of the vectors of both; None where all were refused.
    length_here, length_there : median lengths of the vectors.
    """

    kind: str
    texts: int
    refused: int
    least: float | None
    median: float | None
    length_here: float | None
    length_there: float | None


@dataclass(frozen=True)
class Finding:
    """One difference.

    Attributes
    ----------
    cause : for programs: pooling, pooled prompt, tokens around, first token, prompt, case,
        specials, spaces, attention, limit, empty, precision, normalize, zero, dimension, batch or
        repeat.
    text : a clause.
    before, after : least cosine of the texts that it concerns without and with it; None where
        nothing was encoded again.
    """

    cause: str
    text: str
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Conformity:
    """What comparing two models found.

    Attributes
    ----------
    same : whether vectors have the same dimension, length and direction, alone and in a batch.
    dimension_here, dimension_there : D of each.
    kinds : the scores, in the order of ``texts.KINDS``.
    findings : why they differ, as far as it was found.
    unexplained : texts whose vectors still differ when all findings are taken into account.
    notes : what was not compared or not found, a sentence each.
    """

    model: str
    against: str
    same: bool
    dimension_here: int
    dimension_there: int
    kinds: Sequence[KindScores]
    findings: Sequence[Finding]
    unexplained: int
    notes: Sequence[str]


@dataclass(frozen=True)
class Answers:
    """The other model's vectors, each asked for alone.

    Attributes
    ----------
    asked : every text.
    taken : those that were not refused.
    vectors : float32 (N, D) of ``taken``.
    refusals : the first reason for each kind of text that was refused.
    """

    other: Other
    asked: Sequence[Sample]
    taken: Sequence[Sample]
    vectors: Vectors
    refusals: dict[str, str]

    @property
    def texts(self) -> list[str]:
        """The texts of the vectors."""
        return [sample.text for sample in self.taken]

    def of_kinds(self, *kinds: str) -> Mask:
        """Return which of the texts taken are of these kinds, (N,)."""
        return np.array([sample.kind in kinds for sample in self.taken], dtype=np.bool_)

    def list_kinds(self, ours: Vectors, scores: Doubles) -> Iterator[KindScores]:
        """Yield the scores (N,) of each kind; ``ours`` are our vectors (N, D) of the texts."""
        here, there = _lengths(ours), _lengths(self.vectors)
        for kind in KINDS:
            chosen = self.of_kinds(kind)
            count = sum(sample.kind == kind for sample in self.asked)
            some = bool(chosen.any())
            yield KindScores(
                kind,
                count,
                count - int(chosen.sum()),
                float(scores[chosen].min()) if some else None,
                median(scores[chosen]) if some else None,
                median(here[chosen]) if some else None,
                median(there[chosen]) if some else None,
            )

    def check_repeats(self) -> Iterator[Finding]:
        """Yield a finding if a text asked for twice has two vectors."""
        again = self.other.embed(self.texts[:1])
        score = compare(again, self.vectors[:1])[0]
        if score < LEAST_COSINE:
            yield Finding(
                "repeat",
                f"the same text asked for twice has two vectors (cosine {score:.4f}): several "
                f"models answer, or one that computes at random",
            )

    def check_batch(self, notes: list[str]) -> Iterator[Finding]:
        """Yield a finding if vectors of texts sent together differ from those of each alone."""
        short, long = self.of_kinds("short"), self.of_kinds("long")
        places = [*map(int, np.flatnonzero(short)[:5]), *map(int, np.flatnonzero(long)[:1])]
        try:
            together = self.other.embed([self.texts[place] for place in places])
        except RefusedError as error:
            notes.append(f"Not compared: several texts in one request, since {error}")
            return
        scores = compare(together, self.vectors[places])
        if scores.min() < LEAST_COSINE:
            yield Finding(
                "batch",
                f"there, a vector depends on the texts it is sent with: alone and in a batch, one "
                f"text has a cosine of {scores.min():.4f} with itself. Padding is read as text, by "
                f"the wrong padding side or without an attention mask",
            )

    def check_lengths(self, ours: Vectors) -> Iterator[Finding]:
        """Yield a finding if vectors are zero, or have other lengths, which cosines do not see."""
        if ours.shape[1] != self.vectors.shape[1]:
            return
        here, there = _lengths(ours), _lengths(self.vectors)
        zero = (there < _ZERO) & (here >= _ZERO)
        if zero.any():
            kinds = {
                sample.kind for sample, is_zero in zip(self.taken, zero, strict=True) if is_zero
            }
            named = " and ".join(sorted(kinds))
            yield Finding("zero", f"there, a vector is all zeros ({named})")
        some = (here >= _ZERO) & (there >= _ZERO)
        here, there = here[some], there[some]
        if (np.abs(there / here - 1) < _LENGTH_TOLERANCE).all():
            return
        shown = f"lengths are {there.min():.3g} to {there.max():.3g}"
        if np.allclose(here, 1, atol=_LENGTH_TOLERANCE):
            text = f"there, vectors are not normalised: {shown}; here, all are 1"
        elif np.allclose(there, 1, atol=_LENGTH_TOLERANCE):
            text = "there, vectors are normalised to length 1; here, they are not"
        else:
            text = f"there, {shown}; here, {here.min():.3g} to {here.max():.3g}"
        yield Finding("normalize", text)


def ask(other: Other, samples: Sequence[Sample], progress: Progress) -> Answers:
    """Return the other model's vectors of each text alone.

    Raises
    ------
    EndpointError : it cannot be asked, or does not even take the first text.
    """
    taken, rows, refusals = [], [], dict[str, str]()
    for sample in samples:
        try:
            rows.append(other.embed([sample.text])[0])
            taken.append(sample)
        except RefusedError as error:
            if not taken:
                raise EndpointError(str(error)) from error
            refusals.setdefault(sample.kind, str(error))
        progress(1)
    return Answers(other, samples, taken, np.array(rows, dtype=np.float32), refusals)


def _lengths(vectors: Vectors) -> Doubles:
    found: Doubles = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return found
