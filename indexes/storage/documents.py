"""Documents on disk: an Arrow IPC file for each shard, mapped, looked up by row number."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from threading import Lock
from typing import TypeAlias

import numpy as np
import pyarrow.compute as pc

from indexes.storage.document_file import SCHEMA, DocumentFile
from indexes.storage.files import StoredFile, damaged, reading
from retrieval import Document
from retrieval.errors import IndexCorruptError
from retrieval.protocols import Rows
from retrieval.types import MetadataValue

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
