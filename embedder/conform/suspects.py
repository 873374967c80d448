"""The usual reasons why one model gives other vectors elsewhere, each tried by encoding again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from embedder.conform.recipe import LocalModel, Recipe
from embedder.engine.text import special_tokens
from retrieval.errors import FailureError
from retrieval.protocols import Vectors
from retrieval.scores import Doubles, cosines

EXPLAINS = 0.999
"""The cosine from which a suspect explains the vector of a text."""
HALF = 0.5
"""A suspect has to take more than this share of the difference away."""
_NEGLIGIBLE = 0.1
"""Once so little of the difference is left, nothing further is looked for."""
_DEPTH, _BEAM = 3, 12
_RANKED_TEXTS, _CHECKED, _PER_POOLING = 4, 3, 4
_MOST_ENDINGS = 8

POOLING_WORDS = {
    "eos": "the last token",
    "mean": "the mean of the tokens",
    "cls": "the first token (CLS)",
    "max": "the largest value per coordinate",
    "weighted_mean": "the weighted mean of the tokens",
}


@dataclass(frozen=True)
class Suspect:
    """One change of a recipe.

    Attributes
    ----------
    group : what it changes; a second suspect of the same group is not tried.
    there, here : what the other model would do, and what ours does.
    """

    group: str
    there: str
    here: str
    recipe: Recipe


@dataclass(frozen=True)
class Explained:
    """The best recipe found, and the suspects that lead to it.

    Attributes
    ----------
    scores : (N,) cosines of the texts that were looked at.
    """

    recipe: Recipe
    scores: Doubles
    suspects: tuple[Suspect, ...] = field(default=())

    @property
    def gap(self) -> float:
        """How far the cosines are from 1, on average."""
        return max(1 - float(self.scores.mean()), 0.0)

    def explains(self, start: Doubles) -> bool:
        """Return whether this is why the cosines were ``start`` before."""
        gap = 1 - float(start.mean())
        return bool(self.suspects) and bool(self.scores.min() >= EXPLAINS) and self.gap < HALF * gap


def compare(ours: Vectors, theirs: Vectors) -> Doubles:
    """Return the cosine of each row (N,); ours are cut to the length of theirs.

    Two vectors of zeros are the same.
    """
    ours = ours[:, : theirs.shape[1]]
    scores = cosines(ours, theirs)
    scores[~ours.any(axis=1) & ~theirs.any(axis=1)] = 1
    return scores


def explain(
    local: LocalModel, start: Recipe, side: str, texts: Sequence[str], theirs: Vectors
) -> Explained:
    """Return the recipe that comes nearest to the other model's vectors of some texts.

    Up to three suspects are combined: each step goes on from the best of the step before. Another
    one is taken on only where it takes half of the remaining difference away.

    Parameters
    ----------
    start : our own recipe of ``side``.
    theirs : float32 (N, D).
    """
    best = first = Explained(start, compare(local.vectors(texts, start), theirs))
    frontier, seen = [first], {start}
    for _ in range(_DEPTH):
        found = []
        for one in frontier:
            for suspect in _list_suspects(local, one.recipe, side):
                used = {earlier.group for earlier in one.suspects}
                if suspect.recipe not in seen and suspect.group not in used:
                    seen.add(suspect.recipe)
                    scores = _try(local, texts[:_RANKED_TEXTS], suspect.recipe, theirs)
                    if scores is not None:
                        trail = (*one.suspects, suspect)
                        found.append(Explained(suspect.recipe, scores, trail))
        found.sort(key=lambda one: -round(one.scores.mean(), 5))
        frontier = _diversify(found)
        for one in frontier[:_CHECKED]:
            scores = compare(local.vectors(texts, one.recipe), theirs)
            whole = replace(one, scores=scores)
            if whole.gap < HALF * best.gap:
                best = whole
        if best.explains(first.scores) and best.gap < _NEGLIGIBLE * first.gap:
            break
    return best


def _diversify(found: Sequence[Explained]) -> list[Explained]:
    """Return the best ones, best first, and the best of each way to pool among them.

    With the wrong pooling, what else is right brings a vector hardly nearer.
    """
    kept = list(found[:_BEAM])
    for pooling in {one.recipe.pooling for one in found}:
        kept += [one for one in found[_BEAM:] if one.recipe.pooling == pooling][:_PER_POOLING]
    return kept


def _try(
    local: LocalModel, texts: Sequence[str], recipe: Recipe, theirs: Vectors
) -> Doubles | None:
    """Return the cosines with a recipe, None where the model cannot follow it."""
    try:
        return compare(local.vectors(texts, recipe), theirs[: len(texts)])
    except FailureError:
        return None


def _suspect(recipe: Recipe, group: str, there: str, here: str, **changes: Any) -> Suspect:
    return Suspect(group, there, here, replace(recipe, **changes))


def _list_suspects(local: LocalModel, recipe: Recipe, side: str) -> Iterator[Suspect]:
    own = POOLING_WORDS.get(local.own_pooling, local.own_pooling)
    for name in local.poolings:
        words = POOLING_WORDS.get(name, name)
        yield _suspect(recipe, "pooling", f"a vector is {words}", f"it is {own}", pooling=name)
    yield from _endings(local, recipe)
    yield from _heads(local, recipe)
    yield from _prompts(local, recipe, side)
    yield from list_text_suspects(recipe)
    if local.chat is not None and recipe.head + recipe.ending != sum(local.chat, ()):
        head, ending = local.chat
        words = "the chat template is applied"
        for tail in {ending: None, ending + recipe.ending: None}:
            yield _suspect(recipe, "tokens around", words, "it is not", head=head, ending=tail)
    for name in local.attentions:
        if recipe.attention == "own":
            words = f"attention is {name}"
            yield _suspect(recipe, "attention", words, "it is not", attention=name)


def _endings(local: LocalModel, recipe: Recipe) -> Iterator[Suspect]:
    spell, own = _speller(local), recipe.ending
    here = f"{spell(own)} does" if own else "no token does"
    endings: list[tuple[int, ...]] = [(), own + own[-1:]] if own else []
    for ending in [*endings, *((token,) for token in _special_ids(local) if own != (token,))]:
        words = f"{spell(ending)} ends a text" if ending else "no token ends a text"
        yield _suspect(recipe, "tokens around", words, here, ending=ending)


def _heads(local: LocalModel, recipe: Recipe) -> Iterator[Suspect]:
    spell, own = _speller(local), recipe.head
    here = f"{spell(own)} does" if own else "no token does"
    if own:
        yield _suspect(recipe, "first token", "no token begins a text", here, head=())
        words = f"{spell(own[:1] + own)} begins a text"
        yield _suspect(recipe, "first token", words, here, head=own[:1] + own)
    for name in ("bos_token_id", "cls_token_id"):
        token = getattr(local.tokenizer, name, None)
        if token is not None and own[:1] != (token,):
            words = f"{spell((int(token),))} begins a text"
            yield _suspect(recipe, "first token", words, here, head=(int(token), *own))


def _prompts(local: LocalModel, recipe: Recipe, side: str) -> Iterator[Suspect]:
    own = local.recipes[side]
    other_side = "document" if side == "query" else "query"
    other = local.recipes[other_side]
    here = f"the {side} prompt is {_show(own)}" if _show(own) else f"a {side} has no prompt"
    if _show(own):
        words = "no prompt goes before a text"
        yield _suspect(recipe, "prompt", words, here, prefix="", suffix="")
        prefix, suffix = own.prefix + recipe.prefix, recipe.suffix + own.suffix
        words = "the prompt is there twice"
        yield _suspect(recipe, "prompt", words, here, prefix=prefix, suffix=suffix)
    if recipe.prefix:
        whole, part = "the prompt is pooled too", "the prompt is left out of the pooling"
        there, ours = (part, whole) if recipe.pools_prompt else (whole, part)
        pools = not recipe.pools_prompt
        yield _suspect(recipe, "pooled prompt", there, ours, pools_prompt=pools)
    if (other.prefix, other.suffix) != (own.prefix, own.suffix) and _show(other):
        words = f"the {other_side} prompt {_show(other)} is used"
        yield _suspect(recipe, "prompt", words, here, prefix=other.prefix, suffix=other.suffix)


def list_text_suspects(recipe: Recipe) -> Iterator[Suspect]:
    """Yield what can be done to the characters of a text."""
    if not recipe.lowercase:
        words = "texts are put in lower case"
        yield _suspect(recipe, "case", words, "they are not", lowercase=True)
    else:
        here = "they are put in lower case"
        yield _suspect(recipe, "case", "texts keep their case", here, lowercase=False)
    if not recipe.reads_specials:
        words = "a text that spells a special token is read as that token"
        yield _suspect(recipe, "specials", words, "it stays text", reads_specials=True)
    else:
        words, here = "a text that spells a special token stays text", "it is read as that token"
        changes = {"reads_specials": False, "prompt_specials": True}
        yield _suspect(recipe, "specials", words, here, **changes)
    if recipe.spaces == "kept":
        words = "blanks and newlines are taken off both ends of a text"
        yield _suspect(recipe, "spaces", words, "they stay", spaces="stripped")
        words = "newlines are replaced by blanks"
        yield _suspect(recipe, "spaces", words, "they stay", spaces="newlines")


def _show(recipe: Recipe) -> str:
    """Return a prompt in quotes, "" where there is none."""
    if not recipe.prefix and not recipe.suffix:
        return ""
    return repr(recipe.prefix + ("{text}" + recipe.suffix if recipe.suffix else ""))


def _special_ids(local: LocalModel) -> list[int]:
    """Return the special tokens that could end a text, the likely ones first."""
    tokenizer = local.tokenizer
    named = [getattr(tokenizer, f"{name}_token_id", None) for name in ("eos", "sep", "pad", "bos")]
    backend = tokenizer.backend_tokenizer
    further = [backend.token_to_id(token) for token in special_tokens(backend)]
    unique = dict.fromkeys([*named, *sorted(further)])
    return [int(token) for token in unique if token is not None][:_MOST_ENDINGS]


def _speller(local: LocalModel) -> Callable[[Sequence[int]], str]:
    return lambda ids: " ".join(
        f"'{token}'" for token in local.tokenizer.convert_ids_to_tokens(list(ids))
    )


def median(scores: Doubles) -> float:
    """Return the median, or 1 of nothing."""
    return float(np.median(scores)) if len(scores) else 1.0
