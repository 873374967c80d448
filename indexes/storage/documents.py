"""Documents on disk: an Arrow IPC file for each shard, mapped, looked up by row number."""

from __future__ import annotations

import json
import mmap
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
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


NO_METADATA = "{}"
WORD = r"[\pL\pN\p{So}]"
"""What a text holds at least one of if it says anything; So is where Unicode has pictographs."""
Fields: TypeAlias = tuple[str, str, str, Mapping[str, MetadataValue]]
"""Id, title, text and metadata of a document."""


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
        self._batches = [0, *accumulate(file.batches for file in self._files)]
        count = self._batches[-1]
        # As ``DocumentFile.open`` has it, rows counted over all files; of those not known, and of
        # one more, which holds no row, the first row lies beyond any.
        self._known = np.full((count + 1, 2 + 2 * len(SCHEMA)), np.iinfo(np.int64).max)
        self._stops = np.zeros(count, np.int64)  # of those not known, that of the last known before
        self._lock = Lock()

    def __len__(self) -> int:
        """Return N, the number of documents."""
        return self._ends[-1] if self._ends else 0

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(path.stat().st_size for path in self.paths)

    def ids(self, rows: Rows) -> dict[int, str]:
        """Return the document id of each row number."""
        numbers, (ids,) = self._read(rows, 1)
        return dict(zip(numbers, ids, strict=True))

    def documents(self, rows: Rows) -> dict[int, Document]:
        """Return the document of each row number; raises IndexCorruptError for a damaged one."""
        return {
            row: Document(doc_id, text, title, metadata)
            for row, (doc_id, title, text, metadata) in self.read(rows).items()
        }

    def read(self, rows: Rows) -> dict[int, Fields]:
        """Return id, title, text and metadata of each row number; raises as ``documents``."""
        numbers, (ids, titles, texts, stored) = self._read(rows, len(SCHEMA))
        try:
            decoded = decode_each(stored)
        except (ValueError, RecursionError):  # which may be valid one by one
            decoded = [self._decode(*one) for one in zip(numbers, stored, strict=True)]
        fields = zip(ids, titles, texts, decoded, strict=True)
        return dict(zip(numbers, fields, strict=True))

    def _decode(self, row: int, stored: str) -> Mapping[str, MetadataValue]:
        with reading(self.paths[bisect_right(self._ends, row)]):
            return decode_metadata(stored)

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

    def _read(self, rows: Rows, columns: int) -> tuple[list[int], list[list[str]]]:
        """Return these rows, rising and each once, and the first so many columns of ``SCHEMA``."""
        wanted = sorted(set(rows.tolist()))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexCorruptError(
                f"{self.paths[0].parent} has {len(self)} documents; row {wanted[-1]} is not there."
            )
        numbers = np.array(wanted, np.int64)
        batches = self._find(numbers)
        places = batches[:, 2 : 2 + columns] + (numbers - batches[:, 0])[:, None]
        places = np.array([places, places + 1])
        bases = batches[:, 2 + len(SCHEMA) :][:, :columns]
        values: list[list[str]] = [[] for _ in range(columns)]
        start = 0
        while start < len(wanted):
            number = bisect_right(self._ends, wanted[start])
            stop = bisect_left(wanted, self._ends[number], start)
            file = self._files[number]
            spans = file.words.take(places[:, start:stop]) + bases[start:stop]
            mapped = file.mapped
            try:
                for column, ends in zip(values, spans.transpose(2, 0, 1).tolist(), strict=True):
                    column += [
                        mapped[first:last].decode() for first, last in zip(*ends, strict=True)
                    ]
            except ValueError as error:  # not UTF-8
                raise damaged(file.path, error) from error
            start = stop
        return wanted, values

    def _find(self, rows: Rows) -> Rows:
        """Return where the batches of these rows lie, one each, as ``DocumentFile.open`` does."""
        while True:
            batches = self._known.take(self._stops.searchsorted(rows, "right"), axis=0)
            unknown = batches[:, 0] > rows
            if not unknown.any():
                return batches
            self._learn(int(rows[unknown][0]))

    def _learn(self, row: int) -> None:
        """Find the batch that holds a row, which is known from now on."""
        file_number = bisect_right(self._ends, row)
        file, first = self._files[file_number], self._starts[file_number]
        found = file.find(row - first)
        number = self._batches[file_number] + found
        begin, end, *places = file.open(found)
        with self._lock:
            self._known[number] = first + begin, first + end, *places
            stops = self._stops.copy()
            np.maximum(stops[number:], first + end, out=stops[number:])
            self._stops = stops
        if stops.searchsorted(row, "right") != number:
            raise damaged(file.path, f"more than one batch holds row {row - first}")
