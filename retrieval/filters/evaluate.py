"""What a filter means, in plain Python; the reference for every backend."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from retrieval.filters.plan import plan_filter
from retrieval.filters.schema import FieldType, Schema
from retrieval.filters.tree import And, Compare, Contains, Expression, Member, Not
from retrieval.filters.values import Value, parse_date
from retrieval.types import Scalar

__all__ = ["evaluate_filter"]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def evaluate_filter(
    expression: Expression, schema: Schema, rows: Iterable[Mapping[str, Scalar]]
) -> Iterator[bool]:
    """Yield for each document's metadata whether the filter holds.

    A comparison of a field that is missing, null or NaN with a value is false, ``!=`` and
    ``not in`` included; ``not`` turns false into true, so ``not year > 3`` holds where there is
    no year. ``== null`` holds for missing, null, NaN and the empty list. Numbers compare by
    value, exactly, whatever their type; text by its code points; dates by the moment they name.

    Raises
    ------
    UsageError : as ``plan_filter`` raises it, before any document is looked at.
    """
    plan_filter(expression, schema)
    return (_holds(expression, schema, metadata) for metadata in rows)


def _holds(expression: Expression, schema: Schema, metadata: Mapping[str, Scalar]) -> bool:
    if isinstance(expression, Not):
        return not _holds(expression.term, schema, metadata)
    if isinstance(expression, Compare | Member | Contains):
        return _leaf_holds(expression, schema, metadata)
    combine = all if isinstance(expression, And) else any
    return combine(_holds(term, schema, metadata) for term in expression.terms)


def _leaf_holds(
    leaf: Compare | Member | Contains, schema: Schema, metadata: Mapping[str, Scalar]
) -> bool:
    kind = schema.type_of(leaf.field)
    value = schema.read(metadata, leaf.field)
    if isinstance(leaf, Compare) and leaf.value is None:
        return (value is None) == (leaf.operator == "==")
    if value is None or kind is None:
        return isinstance(leaf, Member) and not leaf.negated and None in leaf.values
    if isinstance(leaf, Contains):
        assert isinstance(value, tuple)
        return _read(leaf.value, kind) in value
    if isinstance(leaf, Compare):
        return _OPERATORS[leaf.operator](value, _read(leaf.value, kind))
    found = value in [_read(literal, kind) for literal in leaf.values if literal is not None]
    return found != leaf.negated


def _read(literal: Scalar, kind: FieldType) -> Value | None:
    """Return a literal that fits the type; a date as microseconds."""
    return parse_date(literal) if kind.element == "date" and isinstance(literal, str) else literal
