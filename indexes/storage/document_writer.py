"""Writes documents to Arrow IPC files, and digests what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from indexes.storage.document_file import FIRST_ROW, SCHEMA
from indexes.storage.documents import NO_METADATA
from retrieval import Document
from retrieval.errors import RecordError
from retrieval.protocols import Rows
from retrieval.types import MetadataValue

__all__ = ["ContentDigest", "DocumentWriter", "column_bytes", "make_rows"]

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
