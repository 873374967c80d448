"""One Arrow file of documents, mapped: single rows, or all of them in order."""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from indexes.storage.blocks import Blocks, ReadPart, from_memory
from indexes.storage.files import StoredFile, damaged, reading

__all__ = ["FIRST_ROW", "DocumentFile"]

FIRST_ROW = b"first_row"
"""The metadata of a batch that holds the number of its first row."""

_END = b"ARROW1"
_TAIL_BYTES = 4 + len(_END)
"""The length of the footer, and the six bytes that end every Arrow file."""
_BATCHES_SLOT = 10
"""Where the table of a footer says where its list of batches is; see Arrow's File.fbs."""
_SPAN = np.dtype([("start", "<i8"), ("header", "<i4"), ("padding", "<i4"), ("body", "<i8")])


class DocumentFile:
    """One file of a ``DocumentStore``; its rows are counted from 0.

    Raises
    ------
    IndexCorruptError : the file is not what ``DocumentWriter`` writes.
    """

    def __init__(self, file: StoredFile, schema: pa.Schema) -> None:
        self.path = file.path
        self._schema = schema
        self._batches: dict[int, _Batch] = {}
        with reading(file.path):
            with file.path.open("rb") as stream:
                self._status = os.fstat(stream.fileno())
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            content = memoryview(mapped)
            self._blocks = Blocks(file, from_memory(content))
            self._spans = _read_spans(content, self._blocks) if file.blocks else None
            self._reader = ipc.open_file(pa.py_buffer(mapped))
            if not self._reader.schema.equals(schema):
                raise ValueError(f"its columns are {self._reader.schema.names}")
            count = self._reader.num_record_batches
            if self._spans is not None and len(self._spans) != count:
                raise ValueError(f"it has {count} batches, and lists {len(self._spans)}")
        self._count, self._usual = count, 0
        self._length = self._batch(count - 1).stop if count else 0

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._length

    def read(self, rows: Sequence[int], names: Sequence[str]) -> list[list[str]]:
        """Return the values of each row in these columns.

        Raises
        ------
        IndexCorruptError : a row is damaged.
        """
        found, first, stop = [], 0, 0
        try:
            for row in rows:
                if not first <= row < stop:
                    batch = self._batch_of(row)
                    first, stop = batch.first, batch.stop
                    columns = [batch.columns[name] for name in names]
                place = row - first
                found.append(
                    [str(data[ends[place] : ends[place + 1]], "utf-8") for ends, data in columns]
                )
        except ValueError as error:  # not UTF-8
            raise damaged(self.path, error) from error
        return found

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
        options = ipc.IpcReadOptions(
            included_fields=sorted(map(self._schema.get_field_index, names))
        )
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
    """Rows ``first`` to ``stop``; for each column, where its values end, and all their bytes."""

    __slots__ = ("columns", "first", "stop")

    def __init__(self, read: Any) -> None:
        """Raise ValueError or a pyarrow error for a damaged one; Arrow would follow its offsets."""
        batch = read.batch
        batch.validate()
        self.first = int((read.custom_metadata or {})[FIRST_ROW])
        self.stop = self.first + len(batch)
        self.columns: dict[str, tuple[memoryview, memoryview]] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
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
            self.columns[name] = stops.data, memoryview(data or b"").cast("B")


def _read_spans(content: memoryview, blocks: Blocks) -> npt.NDArray[Any]:
    """Return where each batch of an Arrow file lies, having compared the blocks that say so.

    pyarrow keeps this to itself; a batch is to be compared with its checksum before Arrow reads it.

    Raises
    ------
    ValueError : these are no such bytes.
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
