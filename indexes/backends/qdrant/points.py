"""Filters as Qdrant takes them, and the payload that makes them mean what they mean elsewhere.

Qdrant's own types are not used as they come. Ranges compare 64-bit floats, with an index and
without differently beyond 2**53; the embedded engine's Python binding turns ``true`` into 1; a
float matches no exact match. So the payload holds the values as ``make_payload`` writes them:
bools as 0 and 1, dates as UTC text of one form, nulls left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha1
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias
from uuid import NAMESPACE_OID

import numpy as np

from indexes.search.selection import Mask
from indexes.storage.documents import DocumentStore
from indexes.storage.vectors import Shards
from retrieval import Scalar, Vectors
from retrieval.errors import MissingDependencyError
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Plan, Present
from retrieval.filters.schema import INT64, Schema, Value, format_date

__all__ = [
    "ROOT",
    "Json",
    "field_path",
    "list_payload_indexes",
    "make_edge_filter",
    "make_filter",
    "make_payload",
    "BATCH_BYTES",
    "BATCH_POINTS",
    "DOC_ID",
    "ROW",
    "Payload",
    "PointBatch",
    "point_id",
    "read_batches",
]

ROOT = "fields"
"""The payload entry below which the fields lie, apart from ids and texts."""

EXACT = 2**53
"""Whole numbers up to here are float64 numbers."""

Json: TypeAlias = dict[str, Any]

_INDEXES = {
    "bool": "integer",
    "int": "integer",
    "float": "float",
    "string": "keyword",
    "date": "datetime",
}
_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def make_payload(metadata: Mapping[str, Scalar], schema: Schema) -> Json:
    """Return what a point's payload holds under ``ROOT`` for a document.

    Raises
    ------
    UsageError : a value is not of its field's type.
    """
    payload: Json = {}
    for name, kind in schema.types.items():
        value = schema.read(metadata, name)
        if isinstance(value, tuple):
            payload[_escape(name)] = [_write(element, kind.element) for element in value]
        elif value is not None:
            payload[_escape(name)] = _write(value, kind.element)
    return payload


def list_payload_indexes(schema: Schema) -> dict[str, str]:
    """Return the path of every field with the payload index that its filters want."""
    return {field_path(name): _INDEXES[kind.element] for name, kind in schema.types.items()}


def field_path(name: str) -> str:
    """Return the JSON path of a field in the payload, quoted: dots and brackets mean nothing."""
    return f'{ROOT}."{_escape(name)}"'


def make_filter(plan: Plan) -> Json:
    """Return a filter as Qdrant's REST interface takes it (``models.Filter(**...)`` as well).

    It lets through the points of exactly the documents for which the plan holds, whether the
    fields have payload indexes or not.
    """
    if isinstance(plan, Constant):
        nothing: Json = {"is_empty": {"key": ROOT}}
        return {} if plan.holds else {"must": [nothing], "must_not": [nothing]}
    condition = _condition(plan)
    return condition if _is_filter(condition) else {"must": [condition]}


def _condition(plan: Plan) -> Json:
    if isinstance(plan, Present):
        return {"must_not": [{"is_empty": {"key": field_path(plan.field)}}]}
    if isinstance(plan, Inverse):
        if isinstance(plan.term, Present):
            return {"is_empty": {"key": field_path(plan.term.field)}}
        return {"must_not": [_condition(plan.term)]}
    if isinstance(plan, AnyOf):
        return _match(plan)
    if isinstance(plan, Ordered):
        return _range(plan)
    assert not isinstance(plan, Constant)
    kind = "must" if isinstance(plan, Every) else "should"
    return {kind: [_condition(term) for term in plan.terms]}


def _is_filter(condition: Json) -> bool:
    return not condition.keys().isdisjoint({"must", "should", "must_not"})


def _match(plan: AnyOf) -> Json:
    path = field_path(plan.field)
    values = [_write(value, plan.type.element) for value in plan.values]
    if plan.type.element in ("int", "string", "bool"):
        return {"key": path, "match": {"any": values}}
    same = [{"key": path, "range": {"gte": value, "lte": value}} for value in values]
    return same[0] if len(same) == 1 else {"should": same}


def _range(plan: Ordered) -> Json:
    path = field_path(plan.field)
    if plan.type.element == "int" and abs(plan.value) >= EXACT:
        assert isinstance(plan.value, int)
        return _wide_range(path, plan.operator, plan.value)
    bound = _write(plan.value, plan.type.element)
    return {"key": path, "range": {_BOUNDS[plan.operator]: bound}}


def _wide_range(path: str, operator: str, bound: int) -> Json:
    """Return an exact range beyond 2**53, where Qdrant rounds values or bounds or both.

    The range ends at the float64 next to the bound, where rounding changes nothing, and the whole
    numbers from there to the bound, 1536 at most, are listed.
    """
    step = -1 if operator == "<=" else 1
    nearest = float(bound)
    end = int(math.nextafter(nearest, step * math.inf))
    listed = range(bound, end, step)
    within = [value for value in listed if INT64[0] <= value <= INT64[1]]
    conditions: list[Json] = [{"key": path, "match": {"any": within}}]
    if INT64[0] <= end <= INT64[1]:
        conditions.append({"key": path, "range": {_BOUNDS[operator]: float(end)}})
    return conditions[0] if len(conditions) == 1 else {"should": conditions}


def _write(value: Value, element: str) -> Value:
    """Return a value as the payload and the conditions hold it."""
    if element == "bool":
        return int(value)
    if element == "date":
        assert isinstance(value, int)
        return format_date(value)
    return value


def _escape(name: str) -> str:
    """Return a field name as a payload key: no quote, since a JSON path cannot escape one."""
    return name.replace("%", "%25").replace('"', "%22")


def make_edge_filter(condition: Json) -> Any:
    """Return what ``make_filter`` returned as a ``qdrant_edge.Filter``, for the embedded engine.

    Raises
    ------
    MissingDependencyError : qdrant-edge-py is not installed.
    """
    try:
        import qdrant_edge as edge
    except ImportError:
        raise MissingDependencyError(
            "qdrant-edge-py", "The embedded Qdrant", "pip install 'millpond[qdrant]'"
        ) from None

    def convert(part: Json) -> Any:
        if _is_filter(part) or not part:
            must, should, must_not = (
                [convert(term) for term in part.get(kind, [])] or None
                for kind in ("must", "should", "must_not")
            )
            return edge.Filter(must=must, should=should, must_not=must_not)
        if "is_empty" in part:
            return edge.IsEmptyCondition(part["is_empty"]["key"])
        if "match" in part:
            return edge.FieldCondition(part["key"], match=edge.MatchAny(part["match"]["any"]))
        bounds = part["range"]
        is_date = isinstance(next(iter(bounds.values())), str)
        kind = edge.RangeDateTime if is_date else edge.RangeFloat
        return edge.FieldCondition(part["key"], range=kind(**bounds))

    return convert(condition)


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
class Payload:
    """What points carry beside id and row, and which rows become points at all.

    Attributes
    ----------
    schema : of the documents' fields; none are carried by default.
    live : bool (N,), False for deleted rows; None where all are live.
    """

    schema: Schema = field(default_factory=Schema)
    live: Mask | None = None


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Documents that go to Qdrant together.

    Attributes
    ----------
    rows : N row numbers.
    doc_ids : N strings.
    vectors : float32 (N, D).
    fields : N payload entries; None where documents have no fields.
    """

    rows: list[int]
    doc_ids: list[str]
    vectors: Vectors
    fields: list[Json] | None = None

    def __iter__(self) -> Iterator[tuple[str, list[float], Json]]:
        """Yield (point id, vector, payload)."""
        parts = zip(self.rows, self.doc_ids, self.vectors.tolist(), strict=True)
        for number, (row, doc_id, vector) in enumerate(parts):
            payload: Json = {DOC_ID: doc_id, ROW: row}
            if self.fields is not None:
                payload[ROOT] = self.fields[number]
            yield point_id(doc_id), vector, payload


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
) -> Iterator[PointBatch]:
    """Yield all live documents in order, at most 1000 and ``most_bytes`` of JSON at a time.

    A document that is larger than ``most_bytes`` (default BATCH_BYTES) comes alone.
    """
    limit = BATCH_BYTES if most_bytes is None else most_bytes
    carried = payload or Payload()
    has_fields = bool(carried.schema.types)
    fixed = POINT_BYTES + FLOAT_BYTES * vectors.dimension
    waiting: list[_Point] = []
    size = 0
    for point in _read_points(vectors, documents, carried):
        cost = fixed + len(json.dumps(point.doc_id))
        if has_fields:
            cost += len(json.dumps(point.fields))
        if waiting and (len(waiting) == BATCH_POINTS or size + cost > limit):
            yield _pack(waiting, has_fields)
            waiting, size = [], 0
        waiting.append(point)
        size += cost
    if waiting:
        yield _pack(waiting, has_fields)


class _Point(NamedTuple):
    row: int
    doc_id: str
    fields: Json
    vector: Any


def _read_points(vectors: Shards, documents: DocumentStore, payload: Payload) -> Iterator[_Point]:
    """Yield every live row."""
    ids = chain.from_iterable(documents.iterate_ids())
    metadata: Iterator[Mapping[str, Scalar]] = repeat({})
    has_fields = bool(payload.schema.types)
    if has_fields:
        metadata = chain.from_iterable(documents.iterate_metadata())
    row = 0
    for block in vectors:
        for vector in block:
            doc_id, found = next(ids), next(metadata)
            if payload.live is None or payload.live[row]:
                fields = make_payload(found, payload.schema) if has_fields else {}
                yield _Point(row, doc_id, fields, vector)
            row += 1


def _pack(points: list[_Point], has_fields: bool) -> PointBatch:
    return PointBatch(
        [point.row for point in points],
        [point.doc_id for point in points],
        np.stack([point.vector for point in points]),
        [point.fields for point in points] if has_fields else None,
    )
