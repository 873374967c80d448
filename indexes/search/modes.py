"""One search over one index or several, in whichever mode."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from numbers import Integral
from typing import TypeAlias, overload

import numpy as np

from indexes.search.duplicates import first_of_alike
from indexes.search.hybrid import Part, merge, search_words
from indexes.search.selection import Where
from indexes.storage.vectors import check_vectors
from retrieval import Hit, Vectors
from retrieval.corpus.values import find_unwritable
from retrieval.errors import UsageError, check_type
from retrieval.types import DENSE, LEXICAL, Blend, Mode

LEAST_SHARED = 32
MOST_SHARED = 128
"""How many queries a thread takes at a time; of an exact index, which is read once for all of them,
more than of others."""

Search: TypeAlias = Callable[[int], list[list[Hit]]]
"""Finds so many hits per query."""


def describe_lacking(parts: Iterable[Part]) -> str:
    """Return why words cannot be searched and what to type, a line for each such index."""
    lacking = []
    for part in parts:
        if part.snapshot.lexical is not None:
            continue
        fault = part.snapshot.lexical_fault
        why = f"{fault}. Make" if fault else f"{part.folder} has no lexical arm. Make"
        command = f"millpond reindex {shlex.quote(str(part.folder))} --arms dense,lexical"
        lacking.append(f"{why} it{' again' if fault else ''} with: {command}")
    return "\n".join(lacking)


def check_k(k: object) -> None:
    """Raise UsageError unless k is a whole number above 0."""
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise UsageError(f"k is {k!r}; expected a whole number, 1 or more.")
    if k < 1:
        raise UsageError(f"k is {k}; it must be 1 or more.")


def check_questions(texts: Sequence[str]) -> None:
    """Raise UsageError unless each text says what to look for."""
    if isinstance(texts, str):
        raise UsageError(f"texts is the text {texts!r}; expected a list, one text per vector.")
    for number, text in enumerate(texts, start=1):
        which = "The text" if len(texts) == 1 else f"Text {number} of {len(texts)}"
        check_type(which, text, str, "a string")
        if not text.strip():
            raise UsageError(f"{which} is empty; expected what to look for.")
        if problem := find_unwritable(text):
            raise UsageError(f"{which} holds {problem}.")


class Searchable(ABC):
    """An index, or several that are searched as one."""

    @property
    @abstractmethod
    def parts(self) -> list[Part]:
        """The indexes, each with all of its rows; of one fingerprint."""

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of texts; raise UsageError without the model."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; they are opened again when they are needed."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of ``search`` that all of the indexes offer, the default one first."""
        both = all(part.snapshot.lexical is not None for part in self.parts)
        return ("hybrid", DENSE, LEXICAL) if both else (DENSE,)

    def count(self, where: Where = None) -> int:
        """Return how many documents, or passages, a filter lets through; raises as ``search``."""
        return sum(part.snapshot.rows.select(where).count for part in self.parts)

    def choose(self, blend: Blend, label: str = "") -> Blend:
        """Return the blend with every choice made, a weight that all of the indexes keep included.

        ``label`` is how a message names them.

        Raises
        ------
        UsageError : as ``Blend.choose``.
        """
        parts = self.parts
        weights = {part.snapshot.manifest.weight for part in parts}
        weight = weights.pop() if len(weights) == 1 else None
        label = label or " and ".join(part.name for part in parts) or str(parts[0].folder)
        return blend.choose(self.modes, weight, label, describe_lacking(parts))

    @overload
    def search(
        self,
        queries: str,
        k: int = 10,
        *,
        with_text: bool = True,
        where: Where = None,
        texts: None = None,
        mode: str | None = None,
        fusion: str = "convex",
        weight: float | None = None,
        distinct: bool = False,
    ) -> list[Hit]: ...

    @overload
    def search(
        self,
        queries: Vectors | list[str],
        k: int = 10,
        *,
        with_text: bool = True,
        where: Where = None,
        texts: Sequence[str] | None = None,
        mode: str | None = None,
        fusion: str = "convex",
        weight: float | None = None,
        distinct: bool = False,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        queries: Vectors | list[str] | str,
        k: int = 10,
        *,
        with_text: bool = True,
        where: Where = None,
        texts: Sequence[str] | None = None,
        mode: str | None = None,
        fusion: str = "convex",
        weight: float | None = None,
        distinct: bool = False,
    ) -> list[Hit] | list[list[Hit]]:
        """Return at most k hits per query, best first; one list of hits for a single text.

        Fewer than k come back when fewer documents match. Equal scores are ordered by document
        id.

        Parameters
        ----------
        queries : vectors, float32 (Q, D); or one text or a list of texts.
        with_text : False leaves title, text and metadata of the hits empty.
        where : a filter on metadata fields, such as ``'year >= 2020 and lang == "en"'``; see
            ``retrieval.filters``.
        texts : the Q texts that vectors were made from, for the lexical arm.
        mode : "hybrid", "dense" or "lexical", which needs no encoder; by default hybrid where the
            index has both arms and texts are known, else dense.
        fusion : "convex" or "rrf"; see ``indexes.search.hybrid.fuse``.
        weight : of the dense arm in a convex fusion, 0 to 1; by default the one that ``tune`` has
            kept in the index, else ``retrieval.types.DEFAULT_WEIGHT``.
        distinct : whether of documents whose vectors have a cosine of
            ``indexes.search.duplicates.ALIKE`` or more only the best is a hit.

        Raises
        ------
        VectorError : the vectors are not finite float32 (Q, D).
        UsageError : the index was opened without an encoder and a text arrived, k is below 1, the
            filter cannot be read or does not fit the fields, the index lacks an arm that the mode
            needs, a text is empty, or the weight is outside 0 to 1.
        UnknownNameError : the filter names a field that no document has; no such mode or fusion.
        StorageError : the server is down or refuses the key.
        """
        check_k(k)
        asked = _as_texts([queries] if isinstance(queries, str) else queries)
        words = texts if asked is None else asked
        check_questions(words or ())
        usual = DENSE if words is None else None
        chosen = Blend(usual if mode is None else mode, fusion, weight)
        if mode is not None or words is not None:
            chosen = self.choose(chosen)
        if chosen.mode != DENSE and words is None:
            raise UsageError(
                f"Mode {chosen.mode} looks for words, and no text arrived: pass texts."
            )
        parts = _select(self.parts, where)
        vectors: Vectors | None = None
        if chosen.mode != LEXICAL:
            given = queries if asked is None else self._encode(asked)
            dimension = parts[0].snapshot.manifest.dimension
            vectors = np.ascontiguousarray(check_vectors(given, dimension, source="queries"))
            if not len(vectors):
                return []
        if vectors is not None and words is not None and len(vectors) != len(words):
            raise UsageError(
                f"{len(vectors)} vectors and {len(words)} texts arrived; expected equal."
            )

        def make(some: slice) -> Search:
            chosen_vectors = None if vectors is None else vectors[some]
            chosen_words = None if words is None else words[some]
            return _make_search(parts, chosen_vectors, chosen_words, chosen, with_text)

        find = _share_out(parts, len(words or ()) if vectors is None else len(vectors), make)
        found = _search_distinct(parts, find, k) if distinct else find(k)
        return found[0] if isinstance(queries, str) else found


def _share_out(parts: Sequence[Part], total: int, make: Callable[[slice], Search]) -> Search:
    """Return the search for all queries, which threads share where there are many.

    While one is in the engine, another reads documents, in Python. No result depends on the other
    queries.
    """
    engine = min((part.snapshot.engine for part in parts), key=lambda one: one.threads)
    if engine.threads == 1 or total < 2 * LEAST_SHARED:
        return make(slice(total))
    most = MOST_SHARED if engine.exact else MOST_SHARED // 2
    size = max(LEAST_SHARED, min(most, -(-total // engine.threads)))
    searches = [make(slice(start, start + size)) for start in range(0, total, size)]

    def search(k: int) -> list[list[Hit]]:
        with ThreadPoolExecutor(engine.threads, initializer=engine.start_thread) as pool:
            return list(chain.from_iterable(pool.map(lambda ask: ask(k), searches)))

    return search


def _make_search(
    parts: Sequence[Part],
    vectors: Vectors | None,
    words: Sequence[str] | None,
    blend: Blend,
    with_text: bool,
) -> Search:
    if vectors is not None and (words is None or blend.mode == DENSE):
        return partial(_search_dense, parts, vectors, with_text)
    assert words is not None
    return partial(search_words, parts, vectors, words, blend=blend, with_text=with_text)


def _search_distinct(parts: Sequence[Part], search: Search, k: int) -> list[list[Hit]]:
    """Return k hits per query that are not alike; more are asked for until so many are left."""
    wanted = k
    while True:
        found = search(wanted)
        kept = [_first_of_alike(parts, hits) for hits in found]
        if all(
            len(some) >= k or len(every) < wanted for some, every in zip(kept, found, strict=True)
        ):
            return [
                [replace(hit, rank=rank) for rank, hit in enumerate(hits[:k], start=1)]
                for hits in kept
            ]
        wanted *= 2


def _first_of_alike(parts: Sequence[Part], hits: Sequence[Hit]) -> list[Hit]:
    """Return the hits whose vectors are not nearly that of a better one."""
    if not hits:
        return []
    snapshots = {part.name: part.snapshot for part in parts}
    vectors = np.empty((len(hits), parts[0].snapshot.manifest.dimension), np.float32)
    for place, hit in enumerate(hits):
        vectors[place] = snapshots[hit.index].stored.rows(np.array([hit.row], np.int64))[0]
    return [hits[place] for place in first_of_alike(vectors)]


def _as_texts(queries: object) -> list[str] | None:
    """Return texts as a list, None for vectors."""
    if not isinstance(queries, list | tuple):
        return None
    return list(queries) if not queries or any(isinstance(one, str) for one in queries) else None


def _select(parts: Sequence[Part], where: Where) -> list[Part]:
    """Return the indexes with the rows that a filter lets through; of several, an error names
    its own."""
    if where is None:
        return list(parts)
    chosen = []
    for part in parts:
        try:
            chosen.append(replace(part, selection=part.snapshot.rows.select(where)))
        except UsageError as error:
            if len(parts) == 1:
                raise
            raise UsageError(f"In {part.name}: {error}") from None
    return chosen


def _search_dense(
    parts: Sequence[Part], vectors: Vectors, with_text: bool, k: int
) -> list[list[Hit]]:
    lists = [
        part.snapshot.search(vectors, k, with_text=with_text, selection=part.selection)
        for part in parts
    ]
    if len(parts) == 1:
        return lists[0]
    named = [
        [[replace(hit, index=part.name) for hit in hits] for hits in found]
        for part, found in zip(parts, lists, strict=True)
    ]
    return [merge(hits, k) for hits in zip(*named, strict=True)]
