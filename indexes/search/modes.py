"""One search over one index or several, in whichever mode: what ``Index.search`` is made of."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np

from indexes.search.duplicates import first_of_alike
from indexes.search.hybrid import Part, hybrid_search, lexical_search
from indexes.search.selection import Where
from indexes.snapshot import Snapshot
from indexes.storage.vectors import check_vectors
from retrieval import Hit, Vectors
from retrieval.blend import DENSE, LEXICAL, Blend, Mode
from retrieval.errors import UsageError

__all__ = ["Named", "describe_lacking", "kept_weight", "modes_of", "search_named"]

Named: TypeAlias = Sequence[tuple[str, Snapshot]]
"""Indexes with the names that their hits carry; "" where there is one."""

Search: TypeAlias = Callable[[int], list[list[Hit]]]
"""Finds so many hits per query."""


def modes_of(snapshots: Sequence[Snapshot]) -> tuple[Mode, ...]:
    """Return the modes that all of the indexes offer, the default one first."""
    both = all(snapshot.lexical is not None for snapshot in snapshots)
    return ("hybrid", DENSE, LEXICAL) if both else (DENSE,)


def describe_lacking(opened: Iterable[tuple[Path, Snapshot]]) -> str:
    """Return why words cannot be searched and what to type, a line for each such index."""
    lacking = []
    for folder, snapshot in opened:
        if snapshot.lexical is not None:
            continue
        fault = snapshot.lexical_fault
        why = f"{fault}. Make" if fault else f"{folder} has no lexical arm. Make"
        command = f"millpond reindex {shlex.quote(str(folder))} --arms dense,lexical"
        lacking.append(f"{why} it{' again' if fault else ''} with: {command}")
    return "\n".join(lacking)


def kept_weight(snapshots: Sequence[Snapshot]) -> float | None:
    """Return the weight that all of the indexes keep; None where they keep none, or differ."""
    weights = {snapshot.manifest.weight for snapshot in snapshots}
    return weights.pop() if len(weights) == 1 else None


def search_named(
    named: Named,
    queries: Vectors | Sequence[str],
    k: int,
    blend: Blend,
    *,
    encode: Callable[[Sequence[str]], Vectors],
    with_text: bool = True,
    where: Where = None,
    texts: Sequence[str] | None = None,
    folders: Sequence[Path],
) -> list[list[Hit]]:
    """Return at most k hits per query from all of the indexes, merged by score.

    Parameters
    ----------
    named : one index or several of one fingerprint, each with the name that its hits carry.
    encode : turns texts into vectors, where texts arrive and the mode needs vectors.
    folders : where the indexes are, as a message names them.
    queries, with_text, where, texts : as in ``Index.search``.

    Raises
    ------
    VectorError, UsageError, UnknownNameError, StorageError : as ``Index.search``.
    """
    if k < 1:
        raise UsageError(f"k is {k}; it must be 1 or more.")
    asked = _as_texts(queries)
    words = texts if asked is None else asked
    chosen = _choose(named, blend, words is not None, folders)
    search: Search
    if chosen.mode == DENSE:
        vectors = queries if asked is None else encode(asked)
        search = partial(_search_dense, named, vectors, with_text, where)
    elif words is None:
        raise UsageError(f"Mode {chosen.mode} looks for words, and no text arrived: pass texts.")
    elif chosen.mode == LEXICAL:
        search = partial(lexical_search, _select(named, where), words, with_text=with_text)
    else:
        vectors = queries if asked is None else encode(asked)
        checked = check_vectors(vectors, named[0][1].manifest.dimension, source="queries")
        if len(checked) != len(words):
            raise UsageError(
                f"{len(checked)} vectors and {len(words)} texts arrived; expected equal."
            )
        parts = _select(named, where)
        if not len(checked):
            return []
        ready = np.ascontiguousarray(checked)
        search = partial(hybrid_search, parts, ready, words, blend=chosen, with_text=with_text)
    return _search_distinct(named, search, k) if blend.distinct else search(k)


def _choose(named: Named, blend: Blend, has_words: bool, folders: Sequence[Path]) -> Blend:
    """Return how these indexes are searched."""
    if blend.mode is None and not has_words:
        if blend.weight is None:  # nothing is left to be chosen
            return Blend(DENSE)
        blend = replace(blend, mode=DENSE)
    snapshots = [snapshot for _, snapshot in named]
    label = " and ".join(name for name, _ in named) or str(folders[0])
    lacking = describe_lacking(zip(folders, snapshots, strict=True))
    return blend.choose(modes_of(snapshots), kept_weight(snapshots), label, lacking)


def _search_distinct(named: Named, search: Search, k: int) -> list[list[Hit]]:
    """Return k hits per query that are not alike; more are asked for until so many are left."""
    wanted = k
    while True:
        found = search(wanted)
        kept = [_first_of_alike(named, hits) for hits in found]
        if all(
            len(some) >= k or len(every) < wanted for some, every in zip(kept, found, strict=True)
        ):
            return [
                [replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], start=1)]
                for hits in kept
            ]
        wanted *= 2


def _first_of_alike(named: Named, hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits whose vectors are not nearly that of a better one."""
    if not hits:
        return []
    snapshots = dict(named)
    vectors = np.empty((len(hits), named[0][1].manifest.dimension), np.float32)
    for place, hit in enumerate(hits):
        vectors[place] = snapshots[hit.index].stored.rows(np.array([hit.row], np.int64))[0]
    return [hits[place] for place in first_of_alike(vectors)]


def _as_texts(queries: object) -> list[str] | None:
    """Return a list of texts as it is, None for vectors."""
    is_text = isinstance(queries, list) and all(isinstance(text, str) for text in queries)
    return cast("list[str]", queries) if is_text else None


def _select(named: Named, where: Where) -> list[Part]:
    """Return the indexes with the rows that a filter lets through; of several, an error names
    its own."""
    parts = []
    for name, snapshot in named:
        try:
            parts.append(Part(name, snapshot, snapshot.rows.select(where)))
        except UsageError as error:
            if len(named) == 1:
                raise
            raise UsageError(f"In {name}: {error}") from None
    return parts


def _search_dense(
    named: Named, vectors: object, with_text: bool, where: Where, k: int
) -> list[list[Hit]]:
    if len(named) == 1:
        ((_, snapshot),) = named
        return snapshot.search(vectors, k, with_text=with_text, where=where)
    lists = []
    for part in _select(named, where):
        found = part.snapshot.search(vectors, k, with_text=with_text, where=where)
        lists.append([[replace(hit, index=part.name) for hit in hits] for hits in found])
    return [_merge(hits, k) for hits in zip(*lists, strict=True)]


def _merge(lists: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Return the k best of several lists, equal scores by document id."""
    every = [hit for hits in lists for hit in hits]
    every.sort(key=lambda hit: (-hit.score, hit.doc_id))  # stable: then by index
    return [replace(hit, rank=rank) for rank, hit in enumerate(every[:k], start=1)]
