"""Filters as Qdrant takes them, and the payload that makes them mean what they mean elsewhere.

Qdrant compares numbers in its own ways. Ranges compare 64-bit floats, beyond 2**53 otherwise with
a payload index than without. Its JSON parser misreads many floats by a step or two, each time that
a segment is written anew, so that no stored float can be relied on. The embedded engine's Python
binding turns ``true`` into 1. So the payload holds bools as 0 and 1, dates as UTC text of one form,
floats also in a form made of whole numbers or text, and no nulls.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha1
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias
from uuid import NAMESPACE_OID

import numpy as np

from indexes.storage.documents import DocumentStore
from indexes.storage.vectors import Shards
from retrieval import Scalar, Vectors
from retrieval.errors import MissingDependencyError
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Plan, Present
from retrieval.filters.schema import INT64, FieldType, Schema, Value, format_date
from retrieval.protocols import Mask

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

EXACT = 9 * 10**14
"""Qdrant's parser gets whole numbers up to here right even where they are written with ``.0``."""

PARSER_STEPS = 2
"""How many float64 numbers the parser can be off."""

HIGH, LOW, TEXT = "%high", "%low", "%text"
"""End the keys that hold a float's exact forms. No field can: its own % is written %25."""

Json: TypeAlias = dict[str, Any]

_INDEXES = {
    "bool": "integer",
    "int": "integer",
    "float": "float",
    "string": "keyword",
    "date": "datetime",
}
_BOUNDS = {"<=": "lte", ">=": "gte"}


def make_payload(metadata: Mapping[str, Scalar], schema: Schema) -> Json:
    """Return what a point's payload holds under ``ROOT`` for a document.

    Raises
    ------
    UsageError : a value is not of its field's type.
    """
    payload: Json = {}
    for name, kind in schema.types.items():
        value = schema.read(metadata, name)
        key = _escape(name)
        if isinstance(value, tuple):
            payload[key] = [_write(element, kind.element) for element in value]
            if kind.element == "float":
                payload[key + TEXT] = [repr(element) for element in value]
        elif value is not None:
            payload[key] = _write(value, kind.element)
            if kind.element == "float":
                payload[key + HIGH], payload[key + LOW] = _halves(value)
    return payload


def list_payload_indexes(schema: Schema) -> dict[str, str]:
    """Return the path of every payload entry that filters use, with the index it wants."""
    indexes = {}
    for name, kind in schema.types.items():
        indexes[field_path(name)] = _INDEXES[kind.element]
        if kind.element == "float" and kind.is_list:
            indexes[field_path(name, TEXT)] = "keyword"
        elif kind.element == "float":
            indexes[field_path(name, HIGH)] = indexes[field_path(name, LOW)] = "integer"
    return indexes


def field_path(name: str, suffix: str = "") -> str:
    """Return the JSON path of a field in the payload, quoted: dots and brackets mean nothing."""
    return f'{ROOT}."{_escape(name)}{suffix}"'


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
    if plan.type == FieldType("float", is_list=True):
        return _any(field_path(plan.field, TEXT), [repr(value) for value in plan.values])
    path = field_path(plan.field)
    if plan.type.element in ("int", "string", "bool"):
        return _any(path, [_write(value, plan.type.element) for value in plan.values])
    if plan.type.element == "float":
        same: list[Json] = [{"must": _equal_halves(plan.field, value)} for value in plan.values]
    else:
        days = [_write(value, "date") for value in plan.values]
        same = [{"key": path, "range": {"gte": day, "lte": day}} for day in days]
    return same[0] if len(same) == 1 else {"should": same}


def _any(path: str, values: list[Any]) -> Json:
    return {"key": path, "match": {"any": values}}


def _equal_halves(name: str, value: Value) -> list[Json]:
    high, low = _halves(value)
    return [_any(field_path(name, HIGH), [high]), _any(field_path(name, LOW), [low])]


def _range(plan: Ordered) -> Json:
    if plan.type.element == "float":
        return _float_range(plan)
    if plan.type.element == "int" and abs(plan.value) > EXACT:
        assert isinstance(plan.value, int)
        return _wide_range(field_path(plan.field), plan.operator, plan.value)
    bound = _write(plan.value, plan.type.element)
    return {"key": field_path(plan.field), "range": {_BOUNDS[plan.operator]: bound}}


def _float_range(plan: Ordered) -> Json:
    """Compare the high halves, and the low halves where the high ones are equal."""
    high, low = _halves(plan.value)
    bound = _BOUNDS[plan.operator]
    beyond = high - 1 if plan.operator == "<=" else high + 1
    equal = _any(field_path(plan.field, HIGH), [high])
    return {
        "should": [
            {"key": field_path(plan.field, HIGH), "range": {bound: beyond}},
            {"must": [equal, {"key": field_path(plan.field, LOW), "range": {bound: low}}]},
        ]
    }


def _halves(value: Value) -> tuple[int, int]:
    """Return the upper and lower 32 bits of a float's rank among all floats, the lower unsigned."""
    (rank,) = struct.unpack("<q", struct.pack("<d", value))
    if rank < 0:  # the magnitude of a negative float falls as its value rises
        rank ^= INT64[1]
    return rank >> 32, rank & 0xFFFFFFFF


def _wide_range(path: str, operator: str, bound: int) -> Json:
    """Return an exact range of large whole numbers, where Qdrant may round values and bounds.

    The range ends a few float64 numbers short of the bound, so that it holds no wrong number
    however it is rounded. The list, of about 6000 whole numbers at most, reaches beyond that end.
    """
    is_upper = operator == "<="
    near = [float(bound)]
    for _ in range(2 * PARSER_STEPS + 2):
        near.append(math.nextafter(near[-1], -math.inf if is_upper else math.inf))
    whole = math.floor if is_upper else math.ceil
    end, last = whole(near[PARSER_STEPS + 1]), whole(near[-1])
    listed = range(bound, last - 1, -1) if is_upper else range(bound, last + 1)
    conditions = [_any(path, [value for value in listed if INT64[0] <= value <= INT64[1]])]
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
