"""The points that Qdrant gets, in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from itertools import chain
from typing import TypeAlias
from uuid import NAMESPACE_OID

from indexes.backends.qdrant.clients import ClientFields
from indexes.backends.qdrant.filters import ROOT, Json, make_payload
from indexes.storage.documents import DocumentStore
from indexes.storage.vectors import Shards
from retrieval import Document, Vectors
from retrieval.filters import Schema
from retrieval.protocols import Mask

__all__ = ["BATCH_BYTES", "BATCH_POINTS", "ROW", "Payload", "Point", "point_id", "read_batches"]

BATCH_POINTS = 1000
BATCH_BYTES = 16 * 10**6
"""Of one request as JSON. A server refuses more than 32 MB."""

FLOAT_BYTES = 25
"""The longest float32 as JSON, -1.2345678806304932e-05, and its comma."""
POINT_BYTES = 120
"""Braces, keys, the id and the row number of a point as JSON."""

DOC_ID = "doc_id"
ROW = "row"

Point: TypeAlias = tuple[str, Vectors, Json]
"""Id, float32 (D,), payload."""


@dataclass(frozen=True, slots=True)
class Payload:
    """What points carry beside id and row, and which rows become points at all.

    Attributes
    ----------
    schema : of the documents' fields; none are carried by default.
    live : bool (N,), False for deleted and blank rows; None where there are none.
    clients : where other programs find text and metadata; None where no other program looks.
    """

    schema: Schema = field(default_factory=Schema)
    live: Mask | None = None
    clients: ClientFields | None = None

    def carry(self, document: Document) -> Json:
        """Return what the point of a document carries beside id and row."""
        if self.clients is not None:
            return self.clients.make_payload(document, self.schema)
        if not self.schema.types:
            return {}
        return {ROOT: make_payload(document.metadata, self.schema)}


def point_id(doc_id: str) -> str:
    """Return the UUID under which Qdrant keeps this document; always the same for an id.

    It is ``uuid.uuid5(NAMESPACE_OID, doc_id)`` (RFC 9562, 5.5), six times as fast.
    """
    digest = sha1(NAMESPACE_OID.bytes + doc_id.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def read_batches(
    vectors: Shards,
    documents: DocumentStore,
    payload: Payload | None = None,
    *,
    most_bytes: int | None = None,
) -> Iterator[list[Point]]:
    """Yield all live documents in order, at most 1000 and ``most_bytes`` of JSON at a time.

    A document that is larger than ``most_bytes`` (default BATCH_BYTES) comes alone.
    """
    limit = most_bytes or BATCH_BYTES
    fixed = POINT_BYTES + FLOAT_BYTES * vectors.dimension
    batch: list[Point] = []
    size = 0
    for point in _read_points(vectors, documents, payload or Payload()):
        cost = fixed + len(json.dumps(point[2]))
        if batch and (len(batch) == BATCH_POINTS or size + cost > limit):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += cost
    if batch:
        yield batch


def _read_points(vectors: Shards, documents: DocumentStore, payload: Payload) -> Iterator[Point]:
    """Yield every live row."""
    records = _read_documents(documents, payload)
    pairs = zip(chain.from_iterable(vectors), records, strict=True)
    for row, (vector, document) in enumerate(pairs):
        if payload.live is None or payload.live[row]:
            doc_id = document.doc_id
            yield point_id(doc_id), vector, {DOC_ID: doc_id, ROW: row, **payload.carry(document)}


def _read_documents(documents: DocumentStore, payload: Payload) -> Iterator[Document]:
    """Yield all documents, with no more of them than points carry."""
    if payload.clients is not None:
        yield from chain.from_iterable(documents.iterate())
        return
    ids = chain.from_iterable(documents.iterate_ids())
    if not payload.schema.types:
        yield from (Document(doc_id, "") for doc_id in ids)
        return
    metadata = chain.from_iterable(documents.iterate_metadata())
    for doc_id, found in zip(ids, metadata, strict=True):
        yield Document(doc_id, "", metadata=found)
