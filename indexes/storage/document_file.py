"""One Arrow IPC file of documents, mapped: where its values lie, and its columns one by one."""

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

from indexes.storage.files import Blocks, ReadPart, StoredFile, damaged, from_memory, reading

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


class DocumentFile:
    """One file of a ``DocumentStore``; its rows are counted from 0.

    Attributes
    ----------
    path : where it is.
    batches : how many there are.
    mapped, words : its bytes, and the same as int64.

    Raises
    ------
    IndexCorruptError : the file is not what ``DocumentWriter`` writes.
    """

    def __init__(self, file: StoredFile) -> None:
        self.path = file.path
        with reading(file.path):
            with file.path.open("rb") as stream:
                self._status = os.fstat(stream.fileno())
                self.mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            content = memoryview(self.mapped)
            self.words = np.frombuffer(content, "<i8", len(content) // 8)
            self._blocks = Blocks(file, from_memory(content))
            self._spans = _read_spans(content, self._blocks) if file.blocks else None
            whole = pa.py_buffer(self.mapped)
            self._start, self._reader = whole.address, ipc.open_file(whole)
            if not self._reader.schema.equals(SCHEMA):
                raise ValueError(f"its columns are {self._reader.schema.names}")
            self.batches = self._reader.num_record_batches
            if self._spans is not None and len(self._spans) != self.batches:
                raise ValueError(f"it has {self.batches} batches, and lists {len(self._spans)}")
        self._batches: dict[int, tuple[int, ...]] = {}
        self._length = self.open(self.batches - 1)[1] if self.batches else 0

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._length

    def find(self, row: int) -> int:
        """Return the number of the batch that holds a row.

        Raises
        ------
        IndexCorruptError : no batch does, or one is damaged.
        """
        # Most batches hold as many rows as the first; those that are large in bytes hold fewer.
        number: int = min(row // max(1, self.open(0)[1]), self.batches - 1)
        first, stop, *_ = self.open(number)
        if not first <= row < stop:
            start = number if first <= row else 0
            numbers = range(self.batches)
            number = max(0, bisect_right(numbers, row, start, key=lambda n: self.open(n)[0]) - 1)
            first, stop, *_ = self.open(number)
        if not first <= row < stop:
            raise damaged(self.path, f"no batch holds row {row}")
        return number

    def open(self, number: int) -> tuple[int, ...]:
        """Return where a batch lies: its first row and the one after its last, then its columns.

        For each column, the place in ``words`` where the offsets begin; then for each column, the
        place in ``mapped`` where the values begin.

        Raises
        ------
        IndexCorruptError : the batch is damaged.
        """
        found = self._batches.get(number)
        if found is None:
            self._check(number)
            with reading(self.path):
                read = self._reader.get_batch_with_custom_metadata(number)
                first = int((read.custom_metadata or {})[FIRST_ROW])
                offsets, values = _find_columns(read.batch, self._start, 8 * len(self.words))
            found = self._batches[number] = first, first + len(read.batch), *offsets, *values
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
            for number in range(self.batches):
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

    def _check(self, number: int, read: ReadPart | None = None) -> None:
        if self._spans is not None and self._blocks.left:
            start, header, _, body = self._spans[number].tolist()
            self._blocks.check(start, start + header + body, read)


def _find_columns(batch: Any, start: int, size: int) -> tuple[list[int], list[int]]:
    """Return where in the file the offsets of each column begin, in words, and its bytes.

    Raise ValueError or a pyarrow error for a damaged one; Arrow would follow its offsets.
    """
    batch.validate()
    found: tuple[list[int], list[int]] = [], []
    for column in batch.columns:
        _, offsets, data = column.buffers()
        stops = np.frombuffer(offsets, np.int64)[: len(column) + 1]
        length = data.size if data is not None else 0
        rising = bool((stops[1:] >= stops[:-1]).all())
        if (
            column.null_count
            or column.offset
            or not rising
            or not 0 <= stops[0] <= stops[-1] <= length
        ):
            raise ValueError("a value lies outside its column")
        words, skewed = divmod(offsets.address - start, 8)
        first = data.address - start if length else 0
        if skewed or not (words >= 0 and 8 * (words + len(stops)) <= size and 0 <= first < size):
            raise ValueError("its values are not in the file as they are")
        found[0].append(words)
        found[1].append(first)
    return found


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
