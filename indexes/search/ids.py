"""Where ids lie, and the stored documents that have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexes.snapshot import Snapshot
from indexes.storage.document_writer import hash_all_ids, hash_ids
from indexes.storage.manifest import millpond_version
from retrieval.errors import UsageError
from retrieval.passages import read_passage, split_passage_id
from retrieval.protocols import Mask, Rows
from retrieval.types import Document, Passage

FILE_FIELDS = ("path", "modified", "size_bytes")


def read_ids(doc_ids: Iterable[str]) -> Iterator[str]:
    """Yield each id; a string is one, not its letters.

    Raises
    ------
    UsageError : these are no ids.
    """
    if not isinstance(doc_ids, Iterable):
        raise UsageError(f"The ids are {doc_ids!r}; expected an id, or a list of ids.")
    for doc_id in [doc_ids] if isinstance(doc_ids, str) else doc_ids:
        if not isinstance(doc_id, str):
            raise UsageError(f"An id is {doc_id!r}; expected a string, such as {str(doc_id)!r}.")
        yield doc_id


class IdLookup:
    """Finds rows and documents of one state of an index by document id; reads every id once.

    Memory is 16 bytes a row.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._documents = snapshot.documents
        self._in_passages = bool(snapshot.manifest.passages)
        self._key = _document_key(snapshot)
        live = snapshot.rows.everything.mask
        rows = np.arange(len(self._documents), dtype=np.int64)
        rows = rows if live is None else rows[live]
        hashes = hash_all_ids(self._documents, self._key)[rows]
        order = np.argsort(hashes, kind="stable")
        self._rows, self._hashes = rows[order], hashes[order]

    def find(self, doc_ids: Sequence[str]) -> dict[str, list[int]]:
        """Return the live rows of each id that is there, rising."""
        wanted = hash_ids(doc_ids)
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

    def fetch(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """Return the documents that there are, by id, passages put together again."""
        documents = {}
        for doc_id, rows in self.find(list(dict.fromkeys(doc_ids))).items():
            stored = list(self._documents.documents(np.array(rows)).values())
            documents[doc_id] = _join(doc_id, stored) if self._in_passages else stored[0]
        return documents


def document_ids(snapshot: Snapshot, rows: Rows) -> list[str]:
    """Return the ids of the documents that these rows belong to, each once."""
    stored = snapshot.documents.ids(rows).values()
    return list(dict.fromkeys(map(_document_key(snapshot), stored)))


def _document_key(snapshot: Snapshot) -> Callable[[str], str]:
    """Return what turns a stored id into its document's."""
    return (lambda stored_id: split_passage_id(stored_id)[0]) if snapshot.manifest.passages else str


def stored_files(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    """Return when each file was modified, in microseconds since 1970, and its size, by its id.

    None of an index that another millpond wrote, whose readers may give other texts.
    """
    fields = snapshot.rows.columns(FILE_FIELDS)
    if fields is None or snapshot.manifest.millpond != millpond_version():
        return {}
    found: dict[str, tuple[int, int]] = {}
    mixed = set()
    for row in fields.group_by(list(FILE_FIELDS)).aggregate([]).to_pylist():
        path, modified, size = (row[name] for name in FILE_FIELDS)
        mixed.update({path} & found.keys())  # since a part of it could not be read again
        found[path] = modified, size
    return {path: found[path] for path in found.keys() - mixed - {None}}


def rows_of_files(snapshot: Snapshot, paths: Sequence[str]) -> Mask:
    """Return bool (N,), True for the live rows that were read from one of these files."""
    fields = snapshot.rows.columns(FILE_FIELDS[:1]) if paths else None
    if fields is None or not pa.types.is_large_string(fields["path"].type):
        return np.zeros(snapshot.rows.rows, np.bool_)
    wanted = pa.array(paths, pa.large_string())
    found: Mask = pc.is_in(fields["path"], value_set=wanted).to_numpy()
    return found


def _join(doc_id: str, stored: Sequence[Document]) -> Document:
    """Return the document that was cut into these passages.

    Blanks that no passage holds become one line break; of passages that do not say where they
    begin, a blank line separates each from the next.
    """
    parts = [(read_passage(one.doc_id, one.text), one.text) for one in stored]
    parts.sort(key=lambda part: part[0].number)
    text = ""
    for place, passage in parts:
        text = _append(text, place, passage)
    return Document(doc_id, text, stored[0].title, stored[0].metadata)


def _append(text: str, place: Passage, passage: str) -> str:
    if place.start is None:
        return f"{text}\n\n{passage}" if text else passage
    if place.start <= len(text):
        return text[: place.start] + passage
    return text + "\n" * (place.start - len(text)) + passage
