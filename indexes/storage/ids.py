"""Document ids in bounded memory: are they unique, and in which rows does an id lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from indexes.storage.documents import DocumentStore
from retrieval.errors import DuplicateIdError
from retrieval.protocols import Mask

__all__ = ["IdLookup", "check_unique_ids"]

Hashes = npt.NDArray[np.uint64]


def check_unique_ids(store: DocumentStore, *, source: str, live: Mask | None = None) -> None:
    """Raise DuplicateIdError if two documents share an id, naming both records.

    Needs 9 bytes of memory a document: ids are compared by a 64-bit hash first, and only where
    hashes agree are the ids themselves read again. Rows for which ``live`` is False do not count.
    """
    hashes = _hash_all_ids(store)
    if live is not None:
        hashes = hashes[live]
    hashes.sort()
    shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(shared):
        return
    seen: dict[str, int] = {}
    start = 0
    for ids in store.iterate_ids():
        suspects = np.flatnonzero(np.isin(_hash_ids(ids), shared))
        for place in suspects.tolist():
            row, doc_id = start + place, ids[place]
            if live is not None and not live[row]:
                continue
            if doc_id in seen:
                problem = f"id {doc_id!r} is already the id of record {seen[doc_id] + 1}"
                raise DuplicateIdError(source, row + 1, problem)
            seen[doc_id] = row
        start += len(ids)


def _hash_ids(doc_ids: Iterable[str]) -> Hashes:
    """Return uint64 (n,), a 64-bit hash of each id, the same within this process only."""
    return np.fromiter(map(hash, doc_ids), np.int64).view(np.uint64)


def _hash_all_ids(store: DocumentStore, key: Callable[[str], str] | None = None) -> Hashes:
    """Return uint64 (N,), a 64-bit hash of the id of each row, or of what ``key`` makes of it."""
    hashes = np.empty(len(store), dtype=np.uint64)
    row = 0
    for ids in store.iterate_ids():
        hashes[row : row + len(ids)] = _hash_ids(ids if key is None else map(key, ids))
        row += len(ids)
    return hashes


class IdLookup:
    """Finds the live rows of document ids.

    Parameters
    ----------
    documents : all stored rows.
    live : bool (N,), False for deleted rows; None where all are live.
    key : the document id of a stored id; the same by default, the document's for passages.
    """

    def __init__(
        self,
        documents: DocumentStore,
        live: Mask | None,
        key: Callable[[str], str] | None = None,
    ) -> None:
        self._documents = documents
        self._key = key or str
        hashes = _hash_all_ids(documents, key)
        rows = np.arange(len(documents), dtype=np.int64) if live is None else np.flatnonzero(live)
        self._rows = rows[np.argsort(hashes[rows], kind="stable")]
        self._hashes = hashes[self._rows]

    def find(self, doc_ids: Sequence[str]) -> dict[str, list[int]]:
        """Return the rows of each id that is there, rising."""
        wanted = _hash_ids(doc_ids)
        first = np.searchsorted(self._hashes, wanted, side="left").tolist()
        last = np.searchsorted(self._hashes, wanted, side="right").tolist()
        spans = [self._rows[start:stop] for start, stop in zip(first, last, strict=True)]
        suspects = np.concatenate([np.zeros(0, np.int64), *spans])
        names = self._documents.ids(suspects)
        found: dict[str, list[int]] = {}
        for doc_id, span in zip(doc_ids, spans, strict=True):
            rows = sorted(row for row in span.tolist() if self._key(names[row]) == doc_id)
            if rows:
                found[doc_id] = rows
        return found
