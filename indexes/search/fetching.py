"""Stored documents by their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexes.search.selection import IdLookup
from indexes.snapshot import Snapshot
from indexes.storage.manifest import Manifest, millpond_version
from retrieval.passages import read_passage, split_passage_id
from retrieval.protocols import Mask
from retrieval.types import Document, Passage

__all__ = ["Fetcher", "document_key", "look_up", "rows_of_files", "stored_files"]

FILE_FIELDS = ("path", "modified", "size_bytes")


class Fetcher:
    """Finds documents of one state of an index by id; made once, since it reads every id.

    Memory is 16 bytes a row.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._documents = snapshot.documents
        self._in_passages = bool(snapshot.manifest.passages)
        self._lookup = look_up(snapshot)

    def fetch(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """Return the documents that there are, by id, passages put together again."""
        found = self._lookup.find(list(dict.fromkeys(doc_ids)))
        documents = {}
        for doc_id, rows in found.items():
            stored = list(self._documents.documents(np.array(rows)).values())
            documents[doc_id] = _join(doc_id, stored) if self._in_passages else stored[0]
        return documents


def look_up(snapshot: Snapshot) -> IdLookup:
    """Return what finds the live rows of document ids; reads every id."""
    key = document_key(snapshot.manifest)
    return IdLookup(snapshot.documents, snapshot.rows.everything.mask, key)


def document_key(manifest: Manifest) -> Callable[[str], str] | None:
    """Return what turns a stored id into its document's; None where they are the same."""
    return (lambda stored_id: split_passage_id(stored_id)[0]) if manifest.passages else None


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
