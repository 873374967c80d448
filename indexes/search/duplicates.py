"""Near-duplicates: documents whose vectors are almost the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from indexes.search.selection import Where
from indexes.snapshot import Snapshot
from retrieval.errors import UsageError
from retrieval.protocols import Floats, Mask, Progress, Rows, Vectors, no_progress
from retrieval.scores import unit_rows

ALIKE = 0.95
"""The cosine from which on two documents count as one."""
_ROUNDING = 1e-6
_BLOCK_ROWS = 2048


@dataclass
class AlikeGroup:
    """A document and those that are nearly the same.

    Attributes
    ----------
    row : of the document that was stored first.
    others : row and cosine of each other one.
    """

    row: int
    others: list[tuple[int, float]] = field(default_factory=list)


def find_alike(
    snapshot: Snapshot,
    above: float = ALIKE,
    where: Where = None,
    progress: Progress = no_progress,
) -> list[AlikeGroup]:
    """Return the groups of rows whose vectors have a cosine of ``above`` or more.

    Rows are taken in the order in which they are stored. One that is like none of those before is
    kept, and each other one joins the kept row that it is most like: what is left when the others
    are dropped holds no two alike, and for everything that was dropped something like it. Exact:
    every row is compared with every kept one, 2,048 by 2,048 at a time.

    Parameters
    ----------
    where : a filter; rows without a word are left out anyway.
    progress : called with the number of rows just compared.

    Raises
    ------
    UsageError : ``above`` is not between 0 and 1, or the filter does not fit the fields.
    """
    if not 0 < above <= 1:
        raise UsageError(f"above is {above:g}; expected a cosine above 0 and at most 1.")
    selection = snapshot.rows.narrow(snapshot.rows.select(where))
    mask = selection.mask
    every = np.arange(len(snapshot.stored), dtype=np.int64)
    rows = every if mask is None else every[mask]
    groups: dict[int, AlikeGroup] = {}
    kept = np.zeros(0, np.int64)
    for block in _blocks(rows):
        vectors = unit_rows(snapshot.stored.rows(block))
        best, nearest = _nothing(len(block))
        for others in _blocks(kept):
            cosines = vectors @ unit_rows(snapshot.stored.rows(others)).T
            _improve(best, nearest, cosines, others)
        new = _keep(vectors, block, best, nearest, above - _ROUNDING)
        kept = np.concatenate([kept, block[new]])
        for place in np.flatnonzero(~new).tolist():
            leader = int(nearest[place])
            group = groups.setdefault(leader, AlikeGroup(leader))
            group.others.append((int(block[place]), min(1.0, float(best[place]))))
        progress(len(block))
    return [groups[row] for row in sorted(groups)]


def _nothing(count: int) -> tuple[Floats, Rows]:
    return np.full(count, -1, np.float32), np.full(count, -1, np.int64)


def _blocks(rows: Rows) -> Iterator[Rows]:
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]


def _improve(best: Floats, nearest: Rows, cosines: Vectors, others: Rows) -> None:
    """Note the nearest of other rows where it is nearer than what was found before."""
    place = cosines.argmax(axis=1)
    found = cosines[np.arange(len(best)), place]
    better = found > best
    best[better], nearest[better] = found[better], others[place[better]]


def _keep(vectors: Vectors, block: Rows, best: Floats, nearest: Rows, least: float) -> Mask:
    """Return which rows of a block are like none that is kept before them, bool (n,).

    Completes ``best`` and ``nearest`` by the kept rows of the block itself.
    """
    new = best < least
    cosines = np.tril(vectors @ vectors.T, -1)
    for place in np.flatnonzero((cosines >= least).any(axis=1)).tolist():
        earlier = np.where(new[:place], cosines[place, :place], -1.0)
        leader = int(earlier.argmax())
        if earlier[leader] > best[place]:
            best[place], nearest[place] = earlier[leader], block[leader]
        new[place] = best[place] < least
    return new


def first_of_alike(vectors: Vectors) -> list[int]:
    """Return the places of the vectors (N, D) that are like none that is kept before them."""
    if not len(vectors):
        return []
    unit = unit_rows(vectors)
    places = np.arange(len(unit), dtype=np.int64)
    best, nearest = _nothing(len(unit))
    kept: list[int] = places[_keep(unit, places, best, nearest, ALIKE - _ROUNDING)].tolist()
    return kept
