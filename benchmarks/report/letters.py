"""Compact letter displays: which models of a ranking do not differ from each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from string import ascii_letters

__all__ = ["share_letters"]

Column = frozenset[int]


def share_letters(
    names: Sequence[str], different: Collection[tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Return the letters of each name: two names share one exactly if they do not differ.

    Insert-and-absorb with the sweep that follows it: H.-P. Piepho (2004), "An algorithm for a
    letter-based representation of all-pairwise comparisons", Journal of Computational and
    Graphical Statistics 13(2). Letter "a" goes to the group of the first name; after "Z" they
    go on with "a2", "b2", ...

    Parameters
    ----------
    names : the best first.
    different : the pairs that differ, in either order; pairs of other names do not count.
    """
    place = {name: index for index, name in enumerate(names)}
    columns: list[Column] = [frozenset(place.values())] if place else []
    known = [(place[one], place[two]) for one, two in different if one in place and two in place]
    # In the order of the ranking few columns arise on the way; in another order they may explode.
    for first, second in sorted((min(pair), max(pair)) for pair in known):
        columns = _absorb(_insert(columns, first, second))
    columns = sorted(_sweep(sorted(columns, key=sorted)), key=sorted)
    return {
        name: tuple(_letter(number) for number, column in enumerate(columns) if index in column)
        for name, index in place.items()
    }


def _insert(columns: Sequence[Column], first: int, second: int) -> list[Column]:
    """Split every column that holds both into one without each."""
    split: list[Column] = []
    for column in columns:
        if first in column and second in column:
            split += [column - {first}, column - {second}]
        else:
            split.append(column)
    return split


def _absorb(columns: Sequence[Column]) -> list[Column]:
    """Drop every column that another one holds."""
    unique = list(dict.fromkeys(columns))
    return [one for one in unique if not any(one < other for other in unique)]


def _sweep(columns: Sequence[Column]) -> list[Column]:
    """Take out each entry whose every connection another column makes too."""
    kept = list(columns)
    for number in reversed(range(len(kept))):
        for entry in sorted(kept[number], reverse=True):
            others = [one for place, one in enumerate(kept) if place != number and entry in one]
            partners = kept[number] - {entry}
            if others and all(any(one in other for other in others) for one in partners):
                kept[number] = partners
    return _absorb([column for column in kept if column])


def _letter(number: int) -> str:
    """Return a to z, A to Z, then a2 to Z2 and so on."""
    lap, place = divmod(number, len(ascii_letters))
    return ascii_letters[place] + (str(lap + 1) if lap else "")
