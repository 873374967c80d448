"""Documents on disk: an Arrow IPC file for each shard, mapped, looked up by row number."""

from __future__ import annotations

import json
import mmap
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from indexes.storage.files import Blocks, ReadPart, StoredFile, damaged, from_memory, reading
from retrieval import Document
from retrieval.errors import IndexCorruptError
from retrieval.protocols import Rows
from retrieval.types import MetadataValue

__all__ = [
    "FIRST_ROW",
    "NO_METADATA",
    "SCHEMA",
    "DocumentFile",
    "DocumentStore",
    "Fields",
    "decode_each",
    "decode_metadata",
]

NO_METADATA = "{}"
WORD = r"[\pL\pN\p{So}]"
"""What a text holds at least one of if it says anything; So is where Unicode has pictographs."""
FIRST_ROW = b"first_row"
"""The metadata of a batch that holds the number of its first row."""

_END = b"ARROW1"
_TAIL_BYTES = 4 + len(_END)
"""The length of the footer, and the six bytes that end every Arrow file."""
_BATCHES_SLOT = 10
"""Where the table of a footer says where its list of batches is; see Arrow's File.fbs."""
_SPAN = np.dtype([("start", "<i8"), ("header", "<i4"), ("padding", "<i4"), ("body", "<i8")])

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

Column: TypeAlias = tuple[memoryview, memoryview]
"""Where the values of a column of a batch begin and end, int64, and the bytes of all."""


def decode_metadata(stored: str) -> Mapping[str, MetadataValue]:
    """Return the metadata of one document."""
    return json.loads(stored) if stored != NO_METADATA else {}


def decode_each(stored: list[str]) -> list[Mapping[str, MetadataValue]]:
    """Return the metadata of several documents, decoded in one go."""
    if stored.count(NO_METADATA) == len(stored):
        return [{} for _ in stored]
    return json.loads(f"[{','.join(stored)}]")  # type: ignore[no-any-return]


class DocumentStore:
    """Looks documents up by row number in memory-mapped Arrow IPC files.

    Opening reads the footers only; a lookup reads O(log batches) batch headers and the rows
    that were asked for.

    Parameters
    ----------
    files : in the order of their rows.

    Raises
    ------
    IndexCorruptError : a file is not what ``DocumentWriter`` writes, or is truncated; and whenever
        documents are read, a block of a file is not what was written.
    """

    def __init__(self, files: Sequence[StoredFile]) -> None:
        self.paths = [file.path for file in files]
        self._files = [DocumentFile(file) for file in files]
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
        for file, numbers, local in self._pick(rows):
            found.update(zip(numbers, file.ids(local), strict=True))
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
        for file, numbers, local in self._pick(rows):
            ids, titles, texts, stored = zip(*file.read(local), strict=True)
            try:
                decoded = decode_each(stored)
            except (ValueError, RecursionError):  # which may be valid one by one
                with reading(file.path):
                    decoded = [decode_metadata(value) for value in stored]
            fields = zip(ids, titles, texts, decoded, strict=True)
            found.update(zip(numbers, fields, strict=True))
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

    def _pick(self, rows: Rows) -> Iterator[tuple[DocumentFile, list[int], list[int]]]:
        """Yield each file that holds some of these rows, those rows, rising, and as it counts."""
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
            yield self._files[number], part, [row - first for row in part] if first else part
            start = stop


class DocumentFile:
    """One file of a ``DocumentStore``; its rows are counted from 0.

    Raises
    ------
    IndexCorruptError : the file is not what ``DocumentWriter`` writes.
    """

    def __init__(self, file: StoredFile) -> None:
        self.path = file.path
        self._batches: dict[int, _Batch] = {}
        with reading(file.path):
            with file.path.open("rb") as stream:
                self._status = os.fstat(stream.fileno())
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            content = memoryview(mapped)
            self._blocks = Blocks(file, from_memory(content))
            self._spans = _read_spans(content, self._blocks) if file.blocks else None
            self._reader = ipc.open_file(pa.py_buffer(mapped))
            if not self._reader.schema.equals(SCHEMA):
                raise ValueError(f"its columns are {self._reader.schema.names}")
            count = self._reader.num_record_batches
            if self._spans is not None and len(self._spans) != count:
                raise ValueError(f"it has {count} batches, and lists {len(self._spans)}")
        self._count, self._usual = count, 0
        self._length = self._batch(count - 1).stop if count else 0

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._length

    def ids(self, rows: Sequence[int]) -> list[str]:
        """Return the document id of each row; raises as ``read``."""
        try:
            return [
                str(ids[stops[place] : stops[place + 1]], "utf-8")
                for ((stops, ids), *_), place in self._find(rows)
            ]
        except ValueError as error:  # not UTF-8
            raise damaged(self.path, error) from error

    def read(self, rows: Sequence[int]) -> list[tuple[str, str, str, str]]:
        """Return id, title, text and metadata, in JSON, of each row.

        Raises
        ------
        IndexCorruptError : a row is damaged.
        """
        try:
            return [
                (
                    str(ids[i[place] : i[place + 1]], "utf-8"),
                    str(titles[t[place] : t[place + 1]], "utf-8"),
                    str(texts[x[place] : x[place + 1]], "utf-8"),
                    str(metadata[m[place] : m[place + 1]], "utf-8"),
                )
                for ((i, ids), (t, titles), (x, texts), (m, metadata)), place in self._find(rows)
            ]
        except ValueError as error:  # not UTF-8
            raise damaged(self.path, error) from error

    def _find(self, rows: Sequence[int]) -> Iterator[tuple[list[Column], int]]:
        """Yield the columns of the batch that holds each row, and its place there."""
        first = stop = 0
        for row in rows:
            if not first <= row < stop:
                batch = self._batch_of(row)
                first, stop, columns = batch.first, batch.stop, batch.columns
            yield columns, row - first

    def iterate(self, names: Sequence[str]) -> Iterator[list[list[str]]]:
        """Yield the values of these columns, a batch at a time; raises as ``iterate_columns``."""
        for columns in self.iterate_columns(names):
            yield [column.to_pylist() for column in columns]

    def iterate_columns(self, names: Sequence[str]) -> Iterator[list[pa.LargeStringArray]]:
        """Yield these columns, valid UTF-8, a batch at a time.

        Raises
        ------
        IndexCorruptError : a batch is damaged.
        """
        with self._open_plainly(names) as (reader, part):
            for number in range(self._count):
                self._check(number, part)
                with reading(self.path):
                    batch = reader.get_batch(number)
                    columns = [batch.column(name) for name in names]
                    for column in columns:
                        column.validate(full=True)
                yield columns

    @contextmanager
    def _open_plainly(self, names: Sequence[str]) -> Iterator[tuple[Any, ReadPart | None]]:
        """Yield a reader of some columns, and what reads parts of the file, that do not map it.

        Mapped pages stay until the file is closed. Once a writer has deleted or replaced the file,
        the mapping is used after all.
        """
        options = ipc.IpcReadOptions(included_fields=sorted(map(SCHEMA.get_field_index, names)))
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            yield self._reader, None
            return
        with stream:
            number = stream.fileno()
            if not os.path.samestat(os.fstat(number), self._status) or not hasattr(os, "pread"):
                yield self._reader, None
                return
            with reading(self.path):
                reader = ipc.open_file(stream, options=options)
            yield reader, lambda start, stop: os.pread(number, stop - start, start)

    def _batch_of(self, row: int) -> _Batch:
        # Most batches hold as many rows as the first; those that are large in bytes hold fewer.
        if not self._usual:
            self._usual = max(1, self._batch(0).stop)
        batch = self._batches.get(min(row // self._usual, self._count - 1))
        if batch is None or not batch.first <= row < batch.stop:
            numbers = range(self._count)
            start = min(row // self._usual, self._count - 1)
            if not self._batch(start).first <= row:
                start = 0
            number = bisect_right(numbers, row, start, key=lambda n: self._batch(n).first) - 1
            batch = self._batch(max(0, number))
            if not batch.first <= row < batch.stop:
                raise damaged(self.path, f"no batch holds row {row}")
        return batch

    def _batch(self, number: int) -> _Batch:
        """Return a batch; its values are views of the file, not copies."""
        found = self._batches.get(number)
        if found is None:
            self._check(number)
            with reading(self.path):
                found = _Batch(self._reader.get_batch_with_custom_metadata(number))
            self._batches[number] = found
        return found

    def _check(self, number: int, read: ReadPart | None = None) -> None:
        if self._spans is not None and self._blocks.left:
            start, header, _, body = self._spans[number].tolist()
            self._blocks.check(start, start + header + body, read)


class _Batch:
    """Rows ``first`` to ``stop``, and the columns of ``SCHEMA``."""

    __slots__ = ("columns", "first", "stop")

    def __init__(self, read: Any) -> None:
        """Raise ValueError or a pyarrow error for a damaged one; Arrow would follow its offsets."""
        batch = read.batch
        batch.validate()
        self.first = int((read.custom_metadata or {})[FIRST_ROW])
        self.stop = self.first + len(batch)
        self.columns: list[Column] = []
        for column in batch.columns:
            _, offsets, data = column.buffers()
            stops = np.frombuffer(offsets, np.int64)[: len(column) + 1]
            size = data.size if data is not None else 0
            rising = bool((stops[1:] >= stops[:-1]).all())
            if (
                column.null_count
                or column.offset
                or not rising
                or not 0 <= stops[0] <= stops[-1] <= size
            ):
                raise ValueError("a value lies outside its column")
            self.columns.append((stops.data, memoryview(data or b"").cast("B")))


def _read_spans(content: memoryview, blocks: Blocks) -> npt.NDArray[Any]:
    """Return where each batch of an Arrow file lies, having compared the blocks that say so.

    pyarrow keeps this to itself; a batch is to be compared with its checksum before Arrow reads it.
    """
    size = len(content)
    blocks.check(max(0, size - _TAIL_BYTES), size)
    length = _number(content, size - _TAIL_BYTES, 4)
    start = size - _TAIL_BYTES - length
    if content[-len(_END) :] != _END or start < 0:
        raise ValueError("it does not end as an Arrow file does")
    blocks.check(start, size)
    footer = content[start:]
    table = _number(footer, 0, 4)
    fields = table - _number(footer, table, 4, signed=True)
    batches = table + _number(footer, fields + _BATCHES_SLOT, 2)
    batches += _number(footer, batches, 4)
    return np.frombuffer(footer, _SPAN, _number(footer, batches, 4), batches + 4)


def _number(content: memoryview, place: int, width: int, *, signed: bool = False) -> int:
    return int.from_bytes(content[place : place + width], "little", signed=signed)
