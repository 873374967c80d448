"""Documents on disk: an Arrow IPC file for each shard, looked up by row number."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from retrieval import Document, Scalar
from retrieval.errors import DuplicateIdError, IndexCorruptError, RecordError

__all__ = ["DocumentStore", "DocumentWriter", "check_unique_ids", "hash_all_ids", "hash_ids"]

BATCH_DOCUMENTS = 1024
BATCH_BYTES = 8 * 2**20
FIRST_ROW = b"first_row"

# large_string: a batch may hold one document of any size.
SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.large_string(), nullable=False),
        pa.field("title", pa.large_string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("metadata", pa.large_string(), nullable=False),
    ]
)

Rows = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class DocumentWriter:
    """Appends documents to an Arrow IPC file, at most 1024 documents or 8 MiB a batch.

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
        self._pending: list[tuple[str, str, str, str]] = []
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

    def append(self, document: Document) -> None:
        """Write one document, at once or with its batch.

        Raises
        ------
        RecordError : a value that cannot be stored as UTF-8 or JSON.
        OSError : the disk refuses.
        """
        try:
            values = (
                document.doc_id,
                document.title,
                document.text,
                _encode_metadata(document.metadata),
            )
            size = sum(len(value.encode()) for value in values)
        except (UnicodeEncodeError, TypeError, ValueError) as error:
            line = self._before + self.rows + len(self._pending) + 1
            problem = f"document {document.doc_id!r} cannot be stored: {error}"
            raise RecordError(self._source, line, problem) from error
        self._pending.append(values)
        self._pending_bytes += size
        if len(self._pending) >= BATCH_DOCUMENTS or self._pending_bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        columns = zip(*self._pending, strict=True)
        arrays = [pa.array(column, pa.large_string()) for column in columns]
        batch = pa.record_batch(arrays, schema=SCHEMA)
        self._writer.write_batch(batch, custom_metadata={FIRST_ROW: str(self.rows).encode()})
        self.rows += len(self._pending)
        self._pending = []
        self._pending_bytes = 0


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
        """Return the document of each row number."""
        found: dict[int, Document] = {}
        for part, picked in self._pick(rows, ["doc_id", "text", "title", "metadata"]):
            for row, doc_id, text, title, metadata in zip(part, *picked, strict=True):
                found[row] = Document(doc_id, text, title, _decode_metadata(metadata))
        return found

    def iterate_ids(self) -> Iterator[list[str]]:
        """Yield all document ids in order, a batch at a time."""
        for file in self._files:
            yield from file.iterate_column("doc_id")

    def iterate_metadata(self) -> Iterator[list[Mapping[str, Scalar]]]:
        """Yield the metadata of all documents in order, a batch at a time."""
        for file in self._files:
            for column in file.iterate_column("metadata"):
                yield [_decode_metadata(stored) for stored in column]

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
        self._batches: dict[int, tuple[int, Any]] = {}
        try:
            self._reader = ipc.open_file(pa.memory_map(str(path)))
            if not self._reader.schema.equals(SCHEMA):
                raise ValueError(f"its columns are {self._reader.schema.names}")
            self._length = self._end()
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise IndexCorruptError(
                f"{path} is damaged: {reason}. Index the corpus again with --overwrite."
            ) from error

    def __len__(self) -> int:
        return self._length

    def iterate_column(self, name: str) -> Iterator[list[str]]:
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number).column(name).to_pylist()

    def pick(
        self, wanted: Rows, names: Sequence[str]
    ) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Yield, per batch that holds some of these sorted rows, those rows and their values."""
        start = 0
        while start < len(wanted):
            first, batch = self._batch(self._batch_of(int(wanted[start])))
            stop = int(np.searchsorted(wanted, first + batch.num_rows))
            part = wanted[start:stop]
            places = pa.array(part - first)
            yield part.tolist(), [batch.column(n).take(places).to_pylist() for n in names]
            start = stop

    def _batch_of(self, row: int) -> int:
        numbers = range(self._reader.num_record_batches)
        return bisect_right(numbers, row, key=lambda number: self._batch(number)[0]) - 1

    def _batch(self, number: int) -> tuple[int, Any]:
        """Return a batch and its first row; the batch is a view of the file, not a copy."""
        if number not in self._batches:
            found = self._reader.get_batch_with_custom_metadata(number)
            self._batches[number] = (int(found.custom_metadata[FIRST_ROW]), found.batch)
        return self._batches[number]

    def _end(self) -> int:
        if not self._reader.num_record_batches:
            return 0
        first, batch = self._batch(self._reader.num_record_batches - 1)
        return int(first + batch.num_rows)


def check_unique_ids(store: DocumentStore, *, source: str, live: Mask | None = None) -> None:
    """Raise DuplicateIdError if two documents share an id, naming both records.

    Needs 16 bytes of memory a document: ids are compared by a 64-bit hash first, and only rows
    whose hashes agree are looked up. Rows for which ``live`` is False do not count.
    """
    hashes = hash_all_ids(store)
    rows = np.arange(len(store), dtype=np.int64) if live is None else np.flatnonzero(live)
    order = rows[np.argsort(hashes[rows], kind="stable")]
    hashes = hashes[order]
    equal = hashes[1:] == hashes[:-1]
    suspects = np.unique(np.concatenate([order[1:][equal], order[:-1][equal]]))
    seen: dict[str, int] = {}
    for row, doc_id in sorted(store.ids(suspects).items()):
        if doc_id in seen:
            problem = f"id {doc_id!r} is already the id of record {seen[doc_id] + 1}"
            raise DuplicateIdError(source, row + 1, problem)
        seen[doc_id] = row


def hash_ids(doc_ids: Iterable[str]) -> Hashes:
    """Return uint64 (n,), a 64-bit hash of each id."""
    digests = b"".join(blake2b(doc_id.encode(), digest_size=8).digest() for doc_id in doc_ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def hash_all_ids(store: DocumentStore) -> Hashes:
    """Return uint64 (N,), a 64-bit hash of the id of each row."""
    hashes = np.empty(len(store), dtype=np.uint64)
    row = 0
    for ids in store.iterate_ids():
        hashes[row : row + len(ids)] = hash_ids(ids)
        row += len(ids)
    return hashes


def _encode_metadata(metadata: Mapping[str, Scalar]) -> str:
    """Return what the metadata column stores; with ``_decode_metadata``, all that knows how."""
    return json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":"))


def _decode_metadata(stored: str) -> Mapping[str, Scalar]:
    return json.loads(stored) if stored != "{}" else {}
