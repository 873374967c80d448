"""Documents as Qdrant points: what their ids are, what they carry, how many go at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import NAMESPACE_OID, uuid5

from indexes.documents import DocumentStore
from indexes.shards import Shards
from retrieval import Vectors

__all__ = ["BATCH_BYTES", "BATCH_POINTS", "DOC_ID", "ROW", "PointBatch", "point_id", "read_batches"]

BATCH_POINTS = 1000
BATCH_BYTES = 16 * 10**6
"""Of one request as JSON. A server refuses more than 32 MB."""

FLOAT_BYTES = 25
"""The longest float32 as JSON, -1.2345678806304932e-05, and its comma."""
POINT_BYTES = 120
"""Braces, keys, the id and the row number of a point as JSON."""

DOC_ID = "doc_id"
ROW = "row"


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Consecutive documents, of which the first is row ``first_row``.

    Attributes
    ----------
    doc_ids : N strings.
    vectors : float32 (N, D).
    """

    first_row: int
    doc_ids: list[str]
    vectors: Vectors

    def __iter__(self) -> Iterator[tuple[str, list[float], dict[str, str | int]]]:
        """Yield (point id, vector, payload)."""
        rows = enumerate(zip(self.doc_ids, self.vectors.tolist(), strict=True), self.first_row)
        for row, (doc_id, vector) in rows:
            yield point_id(doc_id), vector, {DOC_ID: doc_id, ROW: row}


def point_id(doc_id: str) -> str:
    """Return the UUID under which Qdrant keeps this document; always the same for an id."""
    return str(uuid5(NAMESPACE_OID, doc_id))


def read_batches(
    vectors: Shards, documents: DocumentStore, *, most_bytes: int | None = None
) -> Iterator[PointBatch]:
    """Yield all documents in order, at most 1000 and ``most_bytes`` of JSON at a time.

    A document that is larger than ``most_bytes`` (default BATCH_BYTES) comes alone.
    """
    limit = BATCH_BYTES if most_bytes is None else most_bytes
    doc_ids = (doc_id for batch in documents.iterate_ids() for doc_id in batch)
    fixed = POINT_BYTES + FLOAT_BYTES * vectors.dimension
    row = 0
    for block in vectors:
        names = list(islice(doc_ids, len(block)))
        start = 0
        while start < len(names):
            count = _fitting(names, start, fixed, limit)
            stop = start + count
            yield PointBatch(row, names[start:stop], block[start:stop])
            row += count
            start = stop


def _fitting(names: list[str], start: int, fixed: int, limit: int) -> int:
    """Return how many points from ``start`` on fit into one request, 1 at least."""
    size = 0
    for count, name in enumerate(names[start : start + BATCH_POINTS]):
        size += fixed + len(json.dumps(name))
        if size > limit and count:
            return count
    return min(BATCH_POINTS, len(names) - start)
