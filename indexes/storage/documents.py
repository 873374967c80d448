"""Documents on disk: an Arrow IPC file for each shard, looked up by row number."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from indexes.storage.document_file import FIRST_ROW, DocumentFile
from indexes.storage.files import StoredFile, reading
from retrieval import Document
from retrieval.errors import IndexCorruptError, RecordError
from retrieval.protocols import Rows
from retrieval.types import MetadataValue

__all__ = [
    "SCHEMA",
    "ContentDigest",
    "column_bytes",
    "cut_rows",
    "decode_each",
    "decode_metadata",
    "make_rows",
    "DocumentStore",
    "DocumentWriter",
    "Fields",
]

NO_METADATA = "{}"
WORD = r"[\pL\pN\p{So}]"
"""What a text holds at least one of if it says anything; So is where Unicode has pictographs."""
BATCH_DOCUMENTS = 1024
BATCH_BYTES = 8 * 2**20
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

# large_string: a batch may hold one document of any size.
SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.large_string(), nullable=False),
        pa.field("title", pa.large_string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("metadata", pa.large_string(), nullable=False),
    ]
)

Fields: TypeAlias = tuple[str, str, str, Mapping[str, MetadataValue]]
"""Id, title, text and metadata of a document."""


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


def cut_rows(rows: pa.RecordBatch, start: int, stop: int) -> pa.RecordBatch:
    """Return rows that are stored with the same bytes as if there had been no others."""
    if (start, stop) == (0, len(rows)):
        return rows
    columns = []
    for column in rows.columns:  # a slice would be stored with its neighbours' lengths
        lengths, joined = column_bytes(column.slice(start, stop - start))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        buffers = pa.py_buffer(offsets), pa.py_buffer(joined)
        columns.append(pa.LargeStringArray.from_buffers(stop - start, *buffers))
    return pa.record_batch(columns, schema=SCHEMA)


def _encode_metadata(metadata: Mapping[str, MetadataValue]) -> str:
    """Return what the metadata column stores; the inverse of ``decode_metadata``."""
    return _ENCODER.encode(dict(metadata)) if metadata else NO_METADATA


def decode_metadata(stored: str) -> Mapping[str, MetadataValue]:
    """Return the metadata of one document."""
    return json.loads(stored) if stored != NO_METADATA else {}


def decode_each(stored: list[str]) -> list[Mapping[str, MetadataValue]]:
    """Return the metadata of several documents, decoded in one go."""
    if stored.count(NO_METADATA) == len(stored):
        return [{} for _ in stored]
    return json.loads(f"[{','.join(stored)}]")  # type: ignore[no-any-return]


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
            self._pending.append(cut_rows(rows, start, stop))
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
        batch = self._pending[0]
        if len(self._pending) > 1:
            parts = zip(*(part.columns for part in self._pending), strict=True)
            batch = pa.record_batch([pa.concat_arrays(part) for part in parts], schema=SCHEMA)
        self._writer.write_batch(batch, custom_metadata={FIRST_ROW: str(self.rows).encode()})
        self.rows += self._pending_rows
        self._pending = []
        self._pending_rows = self._pending_bytes = 0


class DocumentStore:
    """Looks documents up by row number in memory-mapped Arrow IPC files.

    Opening reads the footers only; a lookup reads O(log batches) batch headers and the rows
    that were asked for.

    Parameters
    ----------
    place : a folder that holds 00000.arrow and up, or the files themselves, in the order of
        their rows.

    Raises
    ------
    IndexCorruptError : a file is not what ``DocumentWriter`` writes, or is truncated; and whenever
        documents are read, a block of a file is not what was written.
    """

    def __init__(self, place: Path | Sequence[StoredFile]) -> None:
        files = (
            [StoredFile(path) for path in sorted(place.glob("*.arrow"))]
            if isinstance(place, Path)
            else place
        )
        self.paths = [file.path for file in files]
        self._files = [DocumentFile(file, SCHEMA) for file in files]
        self._ends = list(accumulate(len(file) for file in self._files))
        self._starts = [0, *self._ends]

    def __len__(self) -> int:
        """Return N, the number of documents."""
        return self._ends[-1] if self._ends else 0

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def ids(self, rows: Rows) -> dict[int, str]:
        """Return the document id of each row number."""
        found: dict[int, str] = {}
        for _, numbers, values in self._pick(rows, ("doc_id",)):
            found.update(zip(numbers, [value for (value,) in values], strict=True))
        return found

    def documents(self, rows: Rows) -> dict[int, Document]:
        """Return the document of each row number; raises IndexCorruptError for a damaged one."""
        return {
            row: Document(doc_id, text, title, metadata)
            for row, (doc_id, title, text, metadata) in self.read(rows).items()
        }

    def read(self, rows: Rows) -> dict[int, Fields]:
        """Return id, title, text and metadata of each row number; raises as ``documents``."""
        found: dict[int, Fields] = {}
        for file, numbers, values in self._pick(rows, ("metadata", "doc_id", "title", "text")):
            stored = [row[0] for row in values]
            try:
                decoded = decode_each(stored)
            except (ValueError, RecursionError):  # which may be valid one by one
                with reading(file.path):
                    decoded = [decode_metadata(value) for value in stored]
            for number, (_, doc_id, title, text), metadata in zip(
                numbers, values, decoded, strict=True
            ):
                found[number] = (doc_id, title, text, metadata)
        return found

    def iterate_ids(self) -> Iterator[list[str]]:
        """Yield all document ids in order, a batch at a time."""
        for file in self._files:
            for columns in file.iterate(["doc_id"]):
                yield columns[0]

    def iterate_metadata(self) -> Iterator[list[Mapping[str, MetadataValue]]]:
        """Yield the metadata of all documents in order, a batch at a time."""
        for file in self._files:
            for columns in file.iterate(["metadata"]):
                with reading(file.path):
                    decoded = decode_each(columns[0])
                yield decoded

    def find_blank(self, first: int = 0) -> Rows:
        """Return the rows, rising, whose title and text hold no letter, digit or pictograph.

        ``first`` is the row to begin with.
        """
        found = [np.zeros(0, np.int64)]
        for file, start in zip(self._files, self._starts, strict=False):
            row = start
            for columns in (
                file.iterate_columns(["title", "text"]) if row + len(file) > first else ()
            ):
                words = pc.or_(*(pc.match_substring_regex(column, WORD) for column in columns))
                found.append(row + np.flatnonzero(~words.to_numpy(zero_copy_only=False)))
                row += len(words)
        rows = np.concatenate(found)
        return rows[rows >= first]

    def iterate(self) -> Iterator[list[Document]]:
        """Yield all documents in order, a batch at a time."""
        for file in self._files:
            for columns in file.iterate(["doc_id", "text", "title", "metadata"]):
                with reading(file.path):
                    decoded = decode_each(columns[3])
                yield [
                    Document(doc_id, text, title, metadata)
                    for doc_id, text, title, metadata in zip(*columns[:3], decoded, strict=True)
                ]

    def _pick(
        self, rows: Rows, names: Sequence[str]
    ) -> Iterator[tuple[DocumentFile, list[int], list[list[str]]]]:
        """Yield, per file that holds some of these rows, those rows, rising, and their values."""
        wanted = sorted(set(rows.tolist()))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexCorruptError(
                f"{self.paths[0].parent} has {len(self)} documents; row {wanted[-1]} is not there."
            )
        start = 0
        while start < len(wanted):
            number = bisect_right(self._ends, wanted[start])
            stop = bisect_left(wanted, self._ends[number], start)
            part, first = wanted[start:stop], self._starts[number]
            file = self._files[number]
            local = [row - first for row in part] if first else part
            yield file, part, file.read(local, names)
            start = stop
