"""Writes documents to Arrow IPC files and their fields as typed columns, and digests both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from indexes.storage.documents import FIRST_ROW, NO_METADATA, SCHEMA, DocumentStore
from retrieval import Document
from retrieval.errors import DuplicateIdError, RecordError
from retrieval.filters import Schema, SchemaBuilder
from retrieval.filters.schema import FieldType
from retrieval.protocols import Mask, Rows
from retrieval.types import MetadataValue

FIELDS_NAME = "fields.arrow"
DELETED_NAME = "deleted.npy"
BLANK_NAME = "blank.npy"

ELEMENTS = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.large_string(),
    "date": pa.int64(),
}


Hashes: TypeAlias = npt.NDArray[np.uint64]
"""Of ids, 64 bits each, the same within this process only."""

BATCH_DOCUMENTS = 1024
BATCH_BYTES = 8 * 2**20
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def make_rows(documents: Sequence[Document]) -> pa.RecordBatch:
    """Return documents as they are stored: four columns of UTF-8, metadata as JSON.

    Raises
    ------
    UnicodeEncodeError, TypeError, ValueError : a value cannot be stored.
    """
    columns = [
        [document.doc_id for document in documents],
        [document.title for document in documents],
        [document.text for document in documents],
        [_encode_metadata(document.metadata) for document in documents],
    ]
    arrays = [pa.array(column, pa.large_string()) for column in columns]
    for name, array in zip(SCHEMA.names, arrays, strict=True):
        if array.null_count:
            raise TypeError(f"its {name} is None")
    return pa.record_batch(arrays, schema=SCHEMA)


def column_bytes(column: pa.LargeStringArray) -> tuple[Rows, memoryview]:
    """Return the lengths int64 (n,) in bytes of a column's values, and the values joined."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    joined = memoryview(data or b"")[int(ends[0]) : int(ends[-1])]
    return np.diff(ends), joined


def _encode_metadata(metadata: Mapping[str, MetadataValue]) -> str:
    """Return what the metadata column stores; the inverse of ``decode_metadata``."""
    return _ENCODER.encode(dict(metadata)) if metadata else NO_METADATA


class ContentDigest:
    """A digest of the content of documents, independent of how they are cut into batches."""

    def __init__(self) -> None:
        self._columns = [(sha256(), sha256()) for _ in SCHEMA.names]

    def update(self, rows: pa.RecordBatch) -> None:
        """Add documents, as ``make_rows`` returns them."""
        for (lengths, values), column in zip(self._columns, rows.columns, strict=True):
            counts, joined = column_bytes(column)
            lengths.update(counts.astype("<i8", copy=False).data)
            values.update(joined)

    def digest(self) -> str:
        """Return 64 hexadecimal digits."""
        parts = [part.digest() for column in self._columns for part in column]
        return sha256(b"".join(parts)).hexdigest()


NO_ROWS = make_rows([])


class DocumentWriter:
    """Appends documents to an Arrow IPC file, at most 1024 documents or 8 MiB per batch.

    Each batch carries its first row number, so that a reader finds a row by bisection.

    Parameters
    ----------
    path : the file, replaced if it is there.
    source : how messages name the corpus.
    first_row : how many documents come before this file.
    """

    def __init__(self, path: Path, *, source: str = "corpus", first_row: int = 0) -> None:
        self.rows = 0
        self._source = source
        self._before = first_row
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._stream = path.open("wb")
        self._writer = ipc.new_file(self._stream, SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            with self._stream:
                self._flush()
                self._writer.close()
            return
        with suppress(OSError):  # an error is on its way already, and says more
            self._stream.close()

    def extend(self, documents: Sequence[Document]) -> pa.RecordBatch:
        """Write documents, at once or with their batch, and return them as ``make_rows`` does.

        Raises
        ------
        RecordError : a value that cannot be stored as UTF-8 or JSON; no document is written.
        OSError : the disk refuses.
        """
        try:
            rows = make_rows(documents)
        except (UnicodeEncodeError, TypeError, ValueError):
            self._refuse(documents)
            raise
        sizes = sum(column_bytes(column)[0] for column in rows.columns)
        ends, start = np.cumsum(sizes), 0
        while start < len(documents):
            before = int(ends[start - 1]) if start else 0
            # Up to the first document that fills the batch.
            filled = int(np.searchsorted(ends, before + BATCH_BYTES - self._pending_bytes)) + 1
            stop = min(filled, start + BATCH_DOCUMENTS - self._pending_rows, len(documents))
            self._pending.append(rows.slice(start, stop - start))
            self._pending_rows += stop - start
            self._pending_bytes += int(ends[stop - 1]) - before
            if self._pending_rows >= BATCH_DOCUMENTS or self._pending_bytes >= BATCH_BYTES:
                self._flush()
            start = stop
        return rows

    def _refuse(self, documents: Sequence[Document]) -> None:
        """Raise RecordError for the first document that cannot be stored."""
        line = self._before + self.rows + self._pending_rows + 1
        for number, document in enumerate(documents):
            try:
                make_rows([document])
            except (UnicodeEncodeError, TypeError, ValueError) as error:
                problem = f"document {document.doc_id!r} cannot be stored: {error}"
                raise RecordError(self._source, line + number, problem) from error

    def _flush(self) -> None:
        if not self._pending:
            return
        # One more array, an empty one, makes Arrow copy a slice without its neighbours.
        parts = zip(*(part.columns for part in (*self._pending, NO_ROWS)), strict=True)
        batch = pa.record_batch([pa.concat_arrays(part) for part in parts], schema=SCHEMA)
        self._writer.write_batch(batch, custom_metadata={FIRST_ROW: str(self.rows).encode()})
        self.rows += self._pending_rows
        self._pending = []
        self._pending_rows = self._pending_bytes = 0


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the columns of the fields that can be filtered, in the schema's order.

    A date is int64, microseconds since 1970 in UTC. Fields that cannot be filtered have no column.
    """
    return pa.schema([pa.field(name, arrow_type(kind)) for name, kind in schema.types.items()])


def make_columns(rows: Iterable[Mapping[str, MetadataValue]], schema: Schema) -> pa.RecordBatch:
    """Return the metadata of some documents as typed columns, one row per document.

    Missing, null, NaN and the empty list are null; an infinite number is the largest float64.

    Raises
    ------
    UsageError : a value is not of its field's type.
    """
    columns = arrow_schema(schema)
    values: dict[str, list[Any]] = {name: [] for name in columns.names}
    count = 0
    for metadata in rows:
        count += 1
        for name, column in values.items():
            column.append(schema.read(metadata, name))
    if not values:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
    arrays = [pa.array(values[column.name], column.type) for column in columns]
    return pa.record_batch(arrays, schema=columns)


def infer_fields(documents: DocumentStore, live: Mask | None) -> Schema:
    """Return the type of every metadata field of the documents that are not deleted."""
    builder = SchemaBuilder()
    for rows in _live_metadata(documents, live):
        for metadata in rows:
            if metadata:
                builder.add(metadata)
    return builder.build()


def write_fields(documents: DocumentStore, live: Mask | None, schema: Schema, path: Path) -> bool:
    """Write the fields of all rows as typed columns, a batch at a time; False where none has any.

    Deleted rows have no values.

    Raises
    ------
    OSError : the disk refuses.
    """
    if not schema.types:
        return False
    with path.open("wb") as stream, ipc.new_file(stream, arrow_schema(schema)) as writer:
        for rows in _live_metadata(documents, live):
            writer.write_batch(make_columns(rows, schema))
    return True


def _live_metadata(
    documents: DocumentStore, live: Mask | None
) -> Iterator[list[Mapping[str, MetadataValue]]]:
    """Yield the metadata of all rows in order, a batch at a time; nothing for deleted ones."""
    start = 0
    for rows in documents.iterate_metadata():
        if live is not None:
            part = live[start : start + len(rows)].tolist()
            rows = [row if keep else {} for row, keep in zip(rows, part, strict=True)]
        yield rows
        start += len(rows)


def arrow_type(kind: FieldType) -> pa.DataType:
    """Return the type of a field's column."""
    element = ELEMENTS[kind.element]
    return pa.large_list(element) if kind.is_list else element


def check_unique_ids(store: DocumentStore, *, source: str, live: Mask | None = None) -> None:
    """Raise DuplicateIdError if two documents share an id, naming both records.

    Needs 9 bytes of memory a document: ids are compared by a 64-bit hash first, and only where
    hashes agree are the ids themselves read again. Rows for which ``live`` is False do not count.
    """
    hashes = hash_all_ids(store)
    if live is not None:
        hashes = hashes[live]
    hashes.sort()
    shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(shared):
        return
    seen: dict[str, int] = {}
    start = 0
    for ids in store.iterate_ids():
        suspects = np.flatnonzero(np.isin(hash_ids(ids), shared))
        for place in suspects.tolist():
            row, doc_id = start + place, ids[place]
            if live is not None and not live[row]:
                continue
            if doc_id in seen:
                problem = f"id {doc_id!r} is already the id of record {seen[doc_id] + 1}"
                raise DuplicateIdError(source, row + 1, problem)
            seen[doc_id] = row
        start += len(ids)


def hash_ids(doc_ids: Iterable[str]) -> Hashes:
    """Return uint64 (n,), a 64-bit hash of each id, the same within this process only."""
    return np.fromiter(map(hash, doc_ids), np.int64).view(np.uint64)


def hash_all_ids(store: DocumentStore, key: Callable[[str], str] = str) -> Hashes:
    """Return uint64 (N,), a 64-bit hash of the id of each row, or of what ``key`` makes of it."""
    hashes = np.empty(len(store), dtype=np.uint64)
    row = 0
    for ids in store.iterate_ids():
        hashes[row : row + len(ids)] = hash_ids([key(one) for one in ids])
        row += len(ids)
    return hashes
