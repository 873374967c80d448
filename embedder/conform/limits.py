"""Where another model cuts long texts, found by asking it for shorter ones. Imports no torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from embedder.conform.http import RefusedError
from embedder.conform.recipe import LocalModel, Recipe, build_rows
from embedder.conform.suspects import compare
from retrieval.protocols import Vectors
from retrieval.scores import Doubles

_SAME_TEXT = 1 - 1e-6
"""Two texts that are cut to the same tokens have the same vector, but for rounding."""
_SLACK_TOKENS = 3


def explain_limit(
    local: LocalModel,
    embed: Callable[[Sequence[str]], Vectors],
    recipe: Recipe,
    texts: Sequence[str],
    theirs: Vectors,
    good: float,
) -> tuple[Recipe, str, Doubles] | None:
    """Return the recipe, a sentence and the cosines (N,) that explain long texts, or None.

    Parameters
    ----------
    embed : asks the other model.
    texts, theirs : the long texts, and the other model's vectors (N, D) of them.
    good : the cosine from which a vector is explained.
    """
    whole = replace(recipe, max_tokens=None)
    rows = build_rows(local.tokenizer, texts, whole)
    lengths = [len(row) for row in rows]
    if max(lengths) <= local.most_tokens:
        scores = compare(local.vectors(texts, whole), theirs)
        if (scores >= good).all():
            text = (
                f"there, a text of {max(lengths)} tokens is read whole; here, it is cut at "
                f"{recipe.max_tokens} (the option max_tokens)"
            )
            return whole, text, scores
    longest = max(range(len(texts)), key=lambda place: lengths[place])
    for cut in ("end", "start"):
        words = _find_words(embed, texts[longest], theirs[longest : longest + 1], cut)
        if words is None:
            continue
        near = _near(local, recipe, texts[longest].split(" "), words, cut)
        best = _choose(local, recipe, near, texts, theirs)
        if best is not None and (best[2] >= good).all():
            return best
    return None


def _find_words(
    embed: Callable[[Sequence[str]], Vectors], text: str, full: Vectors, cut: str
) -> int | None:
    """Return the fewest words, first or last, that have the vector of the whole text.

    None where the text without its last (first) words has another vector: it is not cut there.
    """
    words = text.split(" ")

    def is_enough(count: int) -> bool:
        part = words[:count] if cut == "end" else words[-count:]
        try:
            return bool(compare(embed([" ".join(part)]), full)[0] >= _SAME_TEXT)
        except RefusedError:
            return False

    most = len(words) - 1
    if most < 1 or not is_enough(most):
        return None
    return bisect_left(range(most), True, lo=1, key=is_enough)


def _choose(
    local: LocalModel,
    recipe: Recipe,
    near: Iterator[Recipe],
    texts: Sequence[str],
    theirs: Vectors,
) -> tuple[Recipe, str, Doubles] | None:
    """Return the one of several recipes that comes nearest to the vectors of all texts."""
    best: tuple[Recipe, str, Doubles] | None = None
    for changed in near:
        if (changed.max_tokens or 0) > local.most_tokens:
            continue
        scores = compare(local.vectors(texts, changed), theirs)
        if best is None or scores.mean() > best[2].mean() + 1e-6:
            best = changed, _say(recipe, changed), scores
    return best


def _near(
    local: LocalModel, recipe: Recipe, words: Sequence[str], count: int, cut: str
) -> Iterator[Recipe]:
    """Yield recipes that cut inside the last word that matters, or a few tokens around it."""
    whole = replace(recipe, max_tokens=None)
    parts = [
        " ".join(words[:size] if cut == "end" else words[len(words) - size :])
        for size in (count - 1, count)
    ]
    fewer, more = (len(row) for row in build_rows(local.tokenizer, parts, whole))
    # Where the beginning is lost, the prompt is lost with it.
    (bare,) = build_rows(local.tokenizer, [""], whole)
    least = max(len(recipe.head) + len(recipe.ending) + 1, fewer - len(bare) - _SLACK_TOKENS)
    tokens = range(least, more + _SLACK_TOKENS + 1)
    for cuts_ending in (False, True):
        for limit in tokens:
            yield replace(
                recipe,
                max_tokens=limit,
                cut="end" if cut == "end" else "start",
                cuts_ending=cuts_ending,
            )


def _say(recipe: Recipe, changed: Recipe) -> str:
    lost = "their end" if changed.cut == "end" else "their beginning"
    ending = " and the ending" if changed.cuts_ending and changed.ending else ""
    return (
        f"there, texts of more than {changed.max_tokens} tokens lose {lost}{ending}; here, those "
        f"of more than {recipe.max_tokens} lose their end"
    )
