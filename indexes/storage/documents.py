"""Documents on disk: an Arrow IPC file for each shard, looked up by row number."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from indexes.storage.files import reading
from retrieval import Document, Scalar
from retrieval.errors import IndexCorruptError, RecordError
from retrieval.protocols import Rows

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
]

NO_METADATA = "{}"
BATCH_DOCUMENTS = 1024
BATCH_BYTES = 8 * 2**20
FIRST_ROW = b"first_row"
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


def _encode_metadata(metadata: Mapping[str, Scalar]) -> str:
    """Return what the metadata column stores; the inverse of ``decode_metadata``."""
    return _ENCODER.encode(dict(metadata)) if metadata else NO_METADATA


def decode_metadata(stored: str) -> Mapping[str, Scalar]:
    """Return the metadata of one document."""
    return json.loads(stored) if stored != NO_METADATA else {}


def decode_each(stored: list[str]) -> list[Mapping[str, Scalar]]:
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


def _take(column: pa.LargeStringArray, places: Rows) -> list[str]:
    """Return the values at these places; Arrow itself would read wherever damaged offsets point.

    Raises
    ------
    ValueError : the places have no whole values.
    """
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    starts, stops = ends[places], ends[places + 1]
    size = data.size if data is not None else 0
    if column.null_count or not ((starts >= 0) & (starts <= stops) & (stops <= size)).all():
        raise ValueError("a value lies outside its column")
    return column.take(pa.array(places)).to_pylist()  # type: ignore[no-any-return]


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
    IndexCorruptError : a file is not what ``DocumentWriter`` writes, or is truncated.
    """

    def __init__(self, place: Path | Sequence[Path]) -> None:
        self.paths = sorted(place.glob("*.arrow")) if isinstance(place, Path) else list(place)
        self._files = [_DocumentFile(path) for path in self.paths]
        self._ends = np.cumsum([len(file) for file in self._files], dtype=np.int64)

    def __len__(self) -> int:
        """Return N, the number of documents."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def ids(self, rows: Rows) -> dict[int, str]:
        """Return the document id of each row number."""
        found: dict[int, str] = {}
        for part, picked in self._pick(rows, ["doc_id"]):
            found.update(zip(part, picked[0], strict=True))
        return found

    def documents(self, rows: Rows) -> dict[int, Document]:
        """Return the document of each row number; raises IndexCorruptError for a damaged one."""
        found: dict[int, Document] = {}
        for part, picked in self._pick(rows, ["doc_id", "text", "title", "metadata"]):
            for row, doc_id, text, title, metadata in zip(part, *picked, strict=True):
                with reading(self._path_of(row)):
                    found[row] = Document(doc_id, text, title, decode_metadata(metadata))
        return found

    def _path_of(self, row: int) -> Path:
        return self.paths[int(np.searchsorted(self._ends, row, side="right"))]

    def iterate_ids(self) -> Iterator[list[str]]:
        """Yield all document ids in order, a batch at a time."""
        for file in self._files:
            yield from file.iterate_column("doc_id")

    def iterate_metadata(self) -> Iterator[list[Mapping[str, Scalar]]]:
        """Yield the metadata of all documents in order, a batch at a time."""
        for file in self._files:
            for column in file.iterate_column("metadata"):
                with reading(file.path):
                    decoded = decode_each(column)
                yield decoded

    def iterate(self) -> Iterator[list[Document]]:
        """Yield all documents in order, a batch at a time."""
        start = 0
        for ids in self.iterate_ids():
            rows = np.arange(start, start + len(ids), dtype=np.int64)
            yield list(self.documents(rows).values())
            start += len(ids)

    def _pick(
        self, rows: Rows, names: Sequence[str]
    ) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Yield rows, and the values of their columns, a batch at a time."""
        wanted = np.unique(rows)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexCorruptError(
                f"{self.paths[0].parent} has {len(self)} documents; row {wanted[-1]} is not there."
            )
        start = 0
        for file, end in zip(self._files, self._ends.tolist(), strict=True):
            stop = int(np.searchsorted(wanted, end))
            first = end - len(file)
            for part, picked in file.pick(wanted[start:stop] - first, names):
                yield [row + first for row in part], picked
            start = stop


class _DocumentFile:
    """One file of a ``DocumentStore``; its rows are counted from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._batches: dict[int, tuple[int, Any]] = {}
        with reading(path):
            self._status = path.stat()
            self._reader = ipc.open_file(pa.memory_map(str(path)))
            if not self._reader.schema.equals(SCHEMA):
                raise ValueError(f"its columns are {self._reader.schema.names}")
            self._length = self._end()

    def __len__(self) -> int:
        return self._length

    def iterate_column(self, name: str) -> Iterator[list[str]]:
        with self._open_plainly(name) as reader:
            for number in range(reader.num_record_batches):
                with reading(self.path):
                    column = reader.get_batch(number).column(name)
                    column.validate(full=True)
                    values = column.to_pylist()
                yield values

    @contextmanager
    def _open_plainly(self, name: str) -> Iterator[Any]:
        """Yield a reader of one column that does not map: mapped pages stay until the file closes.

        Once a writer has deleted or replaced the file, the mapping is used after all.
        """
        options = ipc.IpcReadOptions(included_fields=[SCHEMA.get_field_index(name)])
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            yield self._reader
            return
        with stream:
            same = os.path.samestat(os.fstat(stream.fileno()), self._status)
            yield ipc.open_file(stream, options=options) if same else self._reader

    def pick(
        self, wanted: Rows, names: Sequence[str]
    ) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Yield, per batch that holds some of these sorted rows, those rows and their values."""
        start = 0
        while start < len(wanted):
            first, batch = self._batch(self._batch_of(int(wanted[start])))
            stop = int(np.searchsorted(wanted, first + batch.num_rows))
            part = wanted[start:stop]
            with reading(self.path):
                if stop == start:
                    raise ValueError(f"no batch holds row {int(wanted[start])}")
                values = [_take(batch.column(name), part - first) for name in names]
            yield part.tolist(), values
            start = stop

    def _batch_of(self, row: int) -> int:
        numbers = range(self._reader.num_record_batches)
        return bisect_right(numbers, row, key=lambda number: self._batch(number)[0]) - 1

    def _batch(self, number: int) -> tuple[int, Any]:
        """Return a batch and its first row; the batch is a view of the file, not a copy."""
        if number not in self._batches:
            with reading(self.path):
                found = self._reader.get_batch_with_custom_metadata(number)
                found.batch.validate()
                first = int((found.custom_metadata or {})[FIRST_ROW])
            self._batches[number] = (first, found.batch)
        return self._batches[number]

    def _end(self) -> int:
        if not self._reader.num_record_batches:
            return 0
        first, batch = self._batch(self._reader.num_record_batches - 1)
        return int(first + batch.num_rows)
