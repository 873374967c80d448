"""The points that Qdrant gets, in batches, and what other programs find in them.

LangChain and others look for text and metadata in entries of their own. Values that Qdrant keeps
and compares as they are lie there only, and filters of ours use them there. What Qdrant would
change or compare in another way lies in both places: see ``filters``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias
from uuid import NAMESPACE_OID, uuid5

from indexes.backends.qdrant.filters import (
    ROOT,
    Json,
    field_path,
    list_payload_indexes,
    make_payload,
)
from indexes.storage.documents import DocumentStore
from indexes.storage.vectors import Shards
from retrieval import Document, Vectors
from retrieval.filters import Schema
from retrieval.filters.schema import INT64, load_list, write_list
from retrieval.protocols import Mask
from retrieval.types import MetadataValue

BATCH_POINTS = 1000
BATCH_BYTES = 16 * 10**6
"""Of one request as JSON. A server refuses more than 32 MB."""

FLOAT_BYTES = 25
"""The longest float32 as JSON, -1.2345678806304932e-05, and its comma."""
POINT_BYTES = 120
"""Braces, keys, the id and the row number of a point as JSON."""

DOC_ID = "doc_id"
ROW = "row"

TITLE = "title"
"""The metadata key of a document's title, unless the metadata has such a field itself."""

SAME = ("int", "float", "string")
"""Types whose values a client may read where our filters look."""

OTHER_INDEXES = {"bool": "bool", "date": "datetime"}
"""For filters of other programs; ours use other entries."""

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Point: TypeAlias = tuple[str, Vectors, Json]
"""Id, float32 (D,), payload."""


@dataclass(frozen=True, slots=True)
class ClientFields:
    """The payload entries for other programs.

    Attributes
    ----------
    text : the entry of the text; "" if texts are left out.
    metadata : the entry of the metadata.
    """

    text: str
    metadata: str

    def make_payload(self, document: Document, schema: Schema) -> Json:
        """Return text and metadata for other programs, and below ROOT what only filters read.

        Raises
        ------
        UsageError : a value is not of its field's type.
        """
        exact = make_payload(document.metadata, schema)
        shared = {name: exact.pop(name) for name in self._shared_names(schema) if name in exact}
        found = _as_json(document.metadata, schema) | shared
        if document.title and TITLE not in schema.types:
            found.setdefault(TITLE, document.title)
        payload: Json = {self.metadata: found}
        if self.text:
            payload[self.text] = document.text
        return payload | ({ROOT: exact} if exact else {})

    def move_paths(self, condition: Json, schema: Schema) -> Json:
        """Return a filter of ``make_filter`` for points of ``make_payload``."""
        moved: Json = _replace_keys(condition, self._moved_paths(schema))
        return moved

    def list_indexes(self, schema: Schema) -> dict[str, str]:
        """Return the path of every payload entry that is filtered, with the index it wants."""
        moved = self._moved_paths(schema)
        ours = {moved.get(path, path): kind for path, kind in list_payload_indexes(schema).items()}
        theirs = {
            self._path(name): OTHER_INDEXES[kind.element]
            for name, kind in schema.types.items()
            if kind.element in OTHER_INDEXES and _has_path(name)
        }
        return ours | theirs

    def _moved_paths(self, schema: Schema) -> dict[str, str]:
        return {field_path(name): self._path(name) for name in self._shared_names(schema)}

    def _shared_names(self, schema: Schema) -> list[str]:
        types = schema.types.items()
        return [name for name, kind in types if kind.element in SAME and _has_path(name)]

    def _path(self, name: str) -> str:
        key = name if PLAIN_KEY.fullmatch(name) else f'"{name}"'
        return f"{self.metadata}.{key}"


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
    """Return the UUID under which Qdrant keeps this document; always the same for an id."""
    return str(uuid5(NAMESPACE_OID, doc_id))


def read_batches(
    vectors: Shards, documents: DocumentStore, payload: Payload
) -> Iterator[list[Point]]:
    """Yield all live documents in order, at most 1000 and ``BATCH_BYTES`` of JSON at a time.

    A document that is larger than ``BATCH_BYTES`` comes alone.
    """
    fixed = POINT_BYTES + FLOAT_BYTES * vectors.dimension
    batch: list[Point] = []
    size = 0
    for point in _read_points(vectors, documents, payload):
        cost = fixed + len(json.dumps(point[2]))
        if batch and (len(batch) == BATCH_POINTS or size + cost > BATCH_BYTES):
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


def _has_path(name: str) -> bool:
    """Return whether a JSON path can name the field as it is, without an escape of ours."""
    return field_path(name) == f'{ROOT}."{name}"'


def _replace_keys(part: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(part, list):
        return [_replace_keys(term, moved) for term in part]
    if not isinstance(part, dict):
        return part
    return {
        name: moved.get(value, value) if name == "key" else _replace_keys(value, moved)
        for name, value in part.items()
    }


def _as_json(metadata: Mapping[str, MetadataValue], schema: Schema) -> Json:
    """Return metadata as JSON can hold it: lists as lists, no nulls, no NaN."""
    found: Json = {}
    for name, value in metadata.items():
        kind = schema.types.get(name)
        if value is None or value != value:  # NaN
            continue
        if kind is not None and kind.is_list:
            elements = (load_list(value) if isinstance(value, str) else value) or []
            assert isinstance(elements, list)
            if kept := [element for element in elements if element is not None]:
                found[name] = kept
        elif _is_wide(value):
            found[name] = str(value)
        else:
            found[name] = write_list(value)
    return found


def _is_wide(value: MetadataValue) -> bool:
    """Return whether it is a number that a server's JSON does not hold."""
    if isinstance(value, float):
        return math.isinf(value)
    return isinstance(value, int) and not INT64[0] <= value <= INT64[1]
