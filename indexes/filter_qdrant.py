"""Filters as Qdrant takes them, and the payload that makes them mean what they mean elsewhere.

Qdrant's own types are not used as they come. Ranges compare 64-bit floats, with an index and
without differently beyond 2**53; the embedded engine's Python binding turns ``true`` into 1; a
float matches no exact match. So the payload holds the values as ``make_payload`` writes them:
bools as 0 and 1, dates as UTC text of one form, nulls left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from retrieval import Scalar
from retrieval.errors import MissingDependencyError
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Plan, Present
from retrieval.filters.schema import Schema
from retrieval.filters.values import INT64, Value, format_date

__all__ = [
    "ROOT",
    "Json",
    "field_path",
    "list_payload_indexes",
    "make_edge_filter",
    "make_filter",
    "make_payload",
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
