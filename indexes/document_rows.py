"""Documents as Arrow columns: how a document is stored, and a digest of what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval import Document, Scalar

__all__ = [
    "SCHEMA",
    "ContentDigest",
    "column_bytes",
    "cut_rows",
    "decode_each",
    "decode_metadata",
    "make_rows",
]

NO_METADATA = "{}"
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


def column_bytes(column: pa.LargeStringArray) -> tuple[npt.NDArray[np.int64], memoryview]:
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
    """Return what the metadata column stores; with ``decode_metadata``, all that knows how."""
    return _ENCODER.encode(dict(metadata)) if metadata else NO_METADATA


def decode_metadata(stored: str) -> Mapping[str, Scalar]:
    """Return the metadata of one document."""
    return json.loads(stored) if stored != NO_METADATA else {}


def decode_each(stored: list[str]) -> list[Mapping[str, Scalar]]:
    """Return what ``decode_metadata`` does of each, in one go."""
    if stored.count(NO_METADATA) == len(stored):
        return [{} for _ in stored]
    return json.loads(f"[{','.join(stored)}]")  # type: ignore[no-any-return]


class ContentDigest:
    """A digest of all that documents are, whatever pieces they come in."""

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
