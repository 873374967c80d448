"""Whether another model gives the vectors of ours, and if not, why. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from embedder.conform.findings import (
    LEAST_COSINE,
    Answers,
    Conformity,
    Finding,
    Other,
    ask,
)
from embedder.conform.limits import explain_limit
from embedder.conform.recipe import LocalModel, Recipe, build_rows
from embedder.conform.suspects import (
    EXPLAINS,
    HALF,
    Explained,
    compare,
    explain,
    list_text_suspects,
    median,
)
from embedder.conform.texts import ORDINARY, make_samples
from embedder.engine.text import special_tokens
from retrieval.errors import FailureError, UsageError
from retrieval.protocols import Mask, Notify, Progress, Vectors, no_progress, silent
from retrieval.scores import Doubles

_FAITHFUL = 0.99999
"""What our model, taken apart, has to reproduce of itself."""
_SAMPLE = 8
_MOST_CHANGES = 3


def conform(
    local: LocalModel,
    other: Other,
    *,
    side: str = "document",
    least: float = LEAST_COSINE,
    progress: Progress = no_progress,
    notify: Notify = silent,
) -> Conformity:
    """Return whether ``other`` gives the vectors of ``local`` on 40 texts, and if not, why.

    Parameters
    ----------
    side : "query" or "document", which of our model's prompts is used.
    least : the smallest cosine that still counts as the same vector.
    progress : called for each text that was asked for.
    notify : receives a line before the long search for reasons.

    Raises
    ------
    EndpointError : the other model cannot be asked, or takes no text at all.
    UsageError : ``least`` is out of range.
    """
    if not 0 < least <= 1:
        raise UsageError(f"The least cosine is {least}; expected more than 0 and at most 1.")
    tokenizer = local.tokenizer
    end = [tokenizer.eos_token] if tokenizer.eos_token else []
    specials = [*end, *special_tokens(tokenizer.backend_tokenizer)]
    samples = make_samples(
        specials,
        lambda text: len(build_rows(tokenizer, [text], Recipe())[0]),
        local.max_tokens,
    )
    answers = ask(other, samples, progress)
    ours, theirs = local.encode(answers.texts, side), answers.vectors
    here, there = ours.shape[1], theirs.shape[1]
    width = min(here, there)
    plain = compare(ours[:, :width], theirs[:, :width])
    notes = [f"Not compared: {kind}, since {why}" for kind, why in answers.refusals.items()]
    findings = [*answers.check_repeats(), *answers.check_batch(notes)]
    if not (plain >= least).all():
        notify("Vectors differ; trying the usual reasons, each by encoding some texts again")
    reasons = _Reasons(local, answers, ours, side, least)
    scores = reasons.find()
    findings += [*reasons.findings, *answers.check_lengths(ours)]
    if here != there:
        findings.insert(0, Finding("dimension", _name_dimensions(here, there, scores)))
    return Conformity(
        local.name,
        other.name,
        not findings and bool((plain >= least).all()),
        here,
        there,
        list(answers.list_kinds(ours, plain)),
        findings,
        int((scores < reasons.good).sum()),
        [*notes, *reasons.notes],
    )


def _name_dimensions(here: int, there: int, scores: Doubles) -> str:
    if median(scores) < EXPLAINS:
        return f"there, a vector has {there} numbers; here, {here}: probably another model"
    if there < here:
        return f"there, a vector has only the first {there} of the {here} numbers"
    return f"there, a vector has all {there} numbers; here, the first {here}"


class _Reasons:
    """Looks for reasons by encoding again, one stage after the other.

    Attributes
    ----------
    findings, notes : as of ``Conformity``.
    good : the cosine from which a vector counts as explained: lower where all are a bit off.
    """

    def __init__(
        self, local: LocalModel, answers: Answers, ours: Vectors, side: str, least: float
    ) -> None:
        self._local, self._answers, self._ours = local, answers, ours
        self._texts, self._theirs = answers.texts, answers.vectors
        self._side, self._least = side, least
        self._recipe = local.recipes[side]
        self.good = least
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def find(self) -> Doubles:
        """Return the cosines (N,) of all texts, with every reason that was found."""
        everything = np.ones(len(self._texts), dtype=np.bool_)
        full = self._vectors(self._recipe, everything)
        width = self._theirs.shape[1]
        if full.shape[1] < width:
            return np.zeros(len(self._texts))
        scores = compare(full, self._theirs)
        if (scores >= self._least).all():
            return scores
        if compare(full[:, : self._ours.shape[1]], self._ours).min() < _FAITHFUL:
            self.notes.append(
                f"{self._local.name} embeds in a way that cannot be taken apart yet, so the "
                f"reasons that show by encoding again were not looked for."
            )
            return compare(self._ours[:, :width], self._theirs[:, : self._ours.shape[1]])
        self._explain_ordinary()
        self._explain_characters()
        self._explain_empty()
        self._explain_long()
        return self._scores(self._recipe, everything)

    def _vectors(self, recipe: Recipe, chosen: Mask) -> Vectors:
        texts = [text for text, wanted in zip(self._texts, chosen, strict=True) if wanted]
        return self._local.vectors(texts, recipe)

    def _scores(self, recipe: Recipe, chosen: Mask) -> Doubles:
        return compare(self._vectors(recipe, chosen), self._theirs[chosen])

    def _explain_ordinary(self) -> None:
        """Find what makes the short texts differ."""
        ordinary = map(int, np.flatnonzero(self._answers.of_kinds(*ORDINARY)))
        places = sorted(ordinary, key=lambda one: len(self._texts[one].encode()))[:_SAMPLE]
        texts = [self._texts[place] for place in places]
        theirs = self._theirs[places]
        start = compare(self._local.vectors(texts, self._recipe), theirs)
        if start.min() < self._least and not (
            start.min() >= EXPLAINS and self._try_precision(texts, theirs)
        ):
            found = explain(self._local, self._recipe, self._side, texts, theirs)
            if found.explains(start):
                self._accept(found, start)
                if found.scores.min() < self._least:
                    self._try_precision(texts, theirs)
            elif not self._try_precision(texts, theirs) and not self._guess_precision(
                texts, theirs
            ):
                self._note_nearest(found, median(start))
        now = compare(self._local.vectors(texts, self._recipe), theirs)
        if now.min() >= EXPLAINS:
            self.good = min(self._least, 1 - 2 * (1 - float(now.min())))
        else:
            self.good = min(self._least, EXPLAINS)

    def _accept(self, found: Explained, start: Doubles) -> None:
        before, after = float(start.min()), float(found.scores.min())
        self._recipe = found.recipe
        self.findings += [
            Finding(one.group, f"there, {one.there}; here, {one.here}", before, after)
            for one in found.suspects
        ]

    def _note_nearest(self, found: Explained, before: float) -> None:
        text = (
            f"None of the usual reasons explains the short texts (median cosine {before:.4f}): "
            f"probably another model, or other weights."
        )
        after = median(found.scores)
        if 1 - after < HALF * (1 - before):
            guess = "; ".join(one.there for one in found.suspects)
            text += f" Nearest comes, with {after:.4f}: {guess}."
        self.notes.append(text)

    def _explain_characters(self) -> None:
        """Find what is done to characters: what explains some texts and spoils none."""
        chosen = ~self._answers.of_kinds("long", "empty")
        for _ in range(_MOST_CHANGES):
            before = self._scores(self._recipe, chosen) >= self.good
            best = None
            for suspect in list_text_suspects(self._recipe):
                scores = self._scores(suspect.recipe, chosen)
                after = scores >= self.good
                spoils = bool((before & ~after).any())
                if not spoils and after.sum() > (before if best is None else best[1]).sum():
                    best = suspect, after, scores
            if best is None:
                return
            suspect, after, scores = best
            gained = after & ~before
            text = f"there, {suspect.there}; here, {suspect.here}"
            was = self._scores(self._recipe, chosen)[gained]
            self.findings.append(
                Finding(suspect.group, text, float(was.min()), float(scores[gained].min()))
            )
            self._recipe = suspect.recipe

    def _explain_empty(self) -> None:
        chosen = self._answers.of_kinds("empty")
        if not chosen.any():
            return
        blank = replace(self._recipe, empty=" ")
        before, after = (float(self._scores(one, chosen)[0]) for one in (self._recipe, blank))
        if before < self.good <= after:
            self._recipe = blank
            text = "there, an empty text is read as one blank"
            self.findings.append(Finding("empty", text, before, after))

    def _explain_long(self) -> None:
        """Find where long texts are cut, by asking for shorter ones."""
        chosen = self._answers.of_kinds("long")
        if not chosen.any():
            return
        scores = self._scores(self._recipe, chosen)
        if (scores >= self.good).all():
            return
        texts = [text for text, wanted in zip(self._texts, chosen, strict=True) if wanted]
        found = explain_limit(
            self._local,
            self._answers.other.embed,
            self._recipe,
            texts,
            self._theirs[chosen],
            self.good,
        )
        if found is None:
            return
        self._recipe, text, after = found
        self.findings.append(Finding("limit", text, float(scores.min()), float(after.min())))

    def _round(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """Return vectors in each precision that our model can compute with."""
        found = {}
        for name in self._local.precisions:
            try:
                found[name] = self._local.vectors(texts, replace(self._recipe, precision=name))
            except FailureError:  # such as a number too large for float16
                continue
        return found

    def _try_precision(self, texts: Sequence[str], theirs: Vectors) -> bool:
        """Return whether rounding as here explains these texts; then take it on."""
        start = compare(self._local.vectors(texts, self._recipe), theirs)
        found = {name: compare(rows, theirs) for name, rows in self._round(texts).items()}
        nearest = max(found, key=lambda name: found[name].mean(), default="")
        if not nearest or 1 - found[nearest].mean() > HALF * (1 - start.mean()):
            return False
        self._recipe = replace(self._recipe, precision=nearest)
        text = f"there, the model computes with {nearest}"
        after = float(found[nearest].min())
        self.findings.append(Finding("precision", text, float(start.min()), after))
        return True

    def _guess_precision(self, texts: Sequence[str], theirs: Vectors) -> bool:
        """Return whether differences are as small as those of rounding; say of which."""
        start = self._local.vectors(texts, self._recipe)
        scores = compare(start, theirs)
        sizes = {
            name: max(1 - float(compare(vectors, start).mean()), 1e-12)
            for name, vectors in self._round(texts).items()
        }
        if scores.min() < EXPLAINS or not sizes:
            return False
        gap = max(1 - float(scores.mean()), 1e-12)
        alike = min(sizes, key=lambda name: abs(np.log(sizes[name] / gap)))
        text = (
            f"there, numbers are rounded: the cosines are about as high everywhere as those of "
            f"our model with {alike} ({1 - sizes[alike]:.6f})"
        )
        self.findings.append(Finding("precision", text))
        return True
