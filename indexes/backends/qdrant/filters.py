"""Filters as Qdrant takes them, and the payload that makes them mean what they mean elsewhere.

Qdrant compares numbers in its own ways. Ranges compare 64-bit floats, and beyond 2**53 their result
depends on whether there is a payload index. Its JSON parser misreads many floats by a step or two,
and again whenever a segment is rewritten, so that no stored float can be relied on. The embedded
engine's Python binding turns ``true`` into 1. So the payload holds bools as 0 and 1, dates as UTC
text of one form, floats also as whole numbers or text, and no nulls.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

from indexes.backends.qdrant.options import load_edge
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Plan, Present
from retrieval.filters.schema import INT64, FieldType, Schema, Value, format_date
from retrieval.types import MetadataValue

ROOT = "fields"
"""The payload entry below which the fields lie, apart from ids and texts."""

EXACT = 9 * 10**14
"""Qdrant's parser reads whole numbers up to here correctly, even if written with ``.0``."""

PARSER_STEPS = 2
"""The largest error of the parser, in float64 numbers."""

HIGH, LOW, TEXT = "%high", "%low", "%text"
"""Suffixes of the keys that hold a float's exact forms; a % in a field name is written %25."""

Json: TypeAlias = dict[str, Any]

_INDEXES = {
    "bool": "integer",
    "int": "integer",
    "float": "float",
    "string": "keyword",
    "date": "datetime",
}
_BOUNDS = {"<=": "lte", ">=": "gte"}


def make_payload(metadata: Mapping[str, MetadataValue], schema: Schema) -> Json:
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
    edge = load_edge()

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
