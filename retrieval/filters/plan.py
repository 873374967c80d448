"""``plan_filter`` checks a filter against the field types and reduces it to a few conditions.

Everything that needs care is settled here, once for all backends: which comparisons a type
allows, literals that the type cannot hold, null, and negation.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from retrieval.errors import UsageError
from retrieval.filters.schema import (
    FIRST_DATE,
    INT64,
    LAST_DATE,
    FieldType,
    Schema,
    Value,
    parse_date,
    read_bounded_float,
)
from retrieval.filters.tree import (
    And,
    Compare,
    Contains,
    Expression,
    Member,
    Not,
    check_depth,
    format_literal,
)
from retrieval.types import Scalar


@dataclass(frozen=True, slots=True)
class Constant:
    """Holds for every document, or for none; only ever a whole plan."""

    holds: bool


@dataclass(frozen=True, slots=True)
class Present:
    """The field has a value: it is neither missing nor null."""

    field: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field's value, or an element of its list, is one of ``values`` (at least one)."""

    field: str
    type: FieldType
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """The field has a value and it is <= or >= ``value``.

    ``value`` is one that the field can hold, and not the end of the type's range that would let
    every value through. Dates are microseconds since 1970.
    """

    field: str
    type: FieldType
    operator: str
    value: int | float


@dataclass(frozen=True, slots=True)
class Every:
    """All of the terms hold."""

    terms: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of the terms holds."""

    terms: tuple[Plan, ...]


@dataclass(frozen=True, slots=True)
class Inverse:
    """The term does not hold; that includes fields without a value."""

    term: Plan


Plan: TypeAlias = Constant | Present | AnyOf | Ordered | Every | Some | Inverse

_RANGES: dict[str, tuple[int | float, int | float]] = {
    "int": INT64,
    "float": (-sys.float_info.max, sys.float_info.max),
    "date": (FIRST_DATE, LAST_DATE),
}

_EXAMPLES = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "string": 'text in quotes, as in "en"',
    "date": 'a date, as in "2020-12-31" or "2020-12-31T23:59:59Z"',
}


def plan_filter(expression: Expression, schema: Schema) -> Plan:
    """Return the conditions a backend has to check for a filter over documents of this schema.

    Raises
    ------
    UnknownNameError : a field that the schema does not have.
    UsageError : a comparison that the field's type does not have, a literal of another type, a
        field whose values are of several types, or a tree deeper than 32.
    """
    check_depth(expression)
    return _plan(expression, schema)


def _plan(expression: Expression, schema: Schema) -> Plan:
    if isinstance(expression, Not):
        return _invert(_plan(expression.term, schema))
    if isinstance(expression, Compare | Member | Contains):
        return _plan_leaf(expression, schema)
    plans = [_plan(term, schema) for term in expression.terms]
    return _all(plans) if isinstance(expression, And) else _any(plans)


def _invert(plan: Plan) -> Plan:
    if isinstance(plan, Constant):
        return Constant(not plan.holds)
    return plan.term if isinstance(plan, Inverse) else Inverse(plan)


def _all(plans: list[Plan]) -> Plan:
    return _combine(plans, Every, decides=False)


def _any(plans: list[Plan]) -> Plan:
    return _combine(plans, Some, decides=True)


def _combine(plans: list[Plan], kind: type[Every | Some], *, decides: bool) -> Plan:
    """Combine plans; a single Constant(decides) among them decides."""
    if Constant(decides) in plans:
        return Constant(decides)
    terms = tuple(plan for plan in plans if not isinstance(plan, Constant))
    if not terms:
        return Constant(not decides)
    return terms[0] if len(terms) == 1 else kind(terms)


def _plan_leaf(leaf: Compare | Member | Contains, schema: Schema) -> Plan:
    name = leaf.field
    kind = schema.type_of(name)
    present: Plan = Constant(False) if kind is None else Present(name)
    if isinstance(leaf, Compare) and leaf.value is None and leaf.operator in ("==", "!="):
        return present if leaf.operator == "!=" else _invert(present)
    if kind is None:
        raise UsageError(
            f"Filter field {name!r} is null in every document; expected {name} == null or "
            f"{name} != null."
        )
    if isinstance(leaf, Contains):
        _check_operator(name, kind, "contains")
        return _any_of(name, kind, (leaf.value,))
    if isinstance(leaf, Compare) and leaf.operator not in ("==", "!="):
        _check_operator(name, kind, leaf.operator)
        return _ordered(name, kind, leaf)
    if isinstance(leaf, Compare):
        _check_operator(name, kind, leaf.operator)
        plan = _any_of(name, kind, (leaf.value,))
        return plan if leaf.operator == "==" else _all([present, _invert(plan)])
    _check_operator(name, kind, "not in" if leaf.negated else "in")
    plan = _any_of(name, kind, tuple(value for value in leaf.values if value is not None))
    if leaf.negated:
        return _all([present, _invert(plan)])
    return _any([plan, _invert(present)]) if None in leaf.values else plan


def _check_operator(name: str, kind: FieldType, operator: str) -> None:
    accepted = ["==", "!=", "in", "not in"]
    if kind.is_list:
        accepted = ["contains", "== null", "!= null"]
    elif kind.element in ("int", "float", "date"):
        accepted = ["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
    if operator in accepted:
        return
    hint = ""
    if kind == FieldType("string") and operator != "contains":
        hint = " A field has an order where all of its values are numbers or ISO 8601 dates."
    raise UsageError(
        f"Filter field {name!r} is of type {kind}, which does not have {operator!r}; "
        f"expected one of {', '.join(accepted)}.{hint}"
    )


def _any_of(name: str, kind: FieldType, literals: tuple[Scalar, ...]) -> Plan:
    values: dict[Value, None] = {}
    for literal in literals:
        value = _read_literal(name, kind, literal)
        if value is not None:
            values[value] = None
    return AnyOf(name, kind, tuple(values)) if values else Constant(False)


def _read_literal(name: str, kind: FieldType, literal: Scalar) -> Value | None:
    """Return a literal as the field holds it, None where the field cannot hold this value."""
    checked = _check_literal(name, kind, literal)
    if isinstance(checked, bool | str) or kind.element == "date":
        return checked
    if kind.element == "int":
        whole = checked == math.floor(checked)
        return int(checked) if whole and INT64[0] <= checked <= INT64[1] else None
    bounded = _to_float(checked)
    return bounded if bounded == checked else None


def _check_literal(name: str, kind: FieldType, literal: Scalar) -> Value:
    """Return a literal of the field's type, a date as microseconds; raise for any other."""
    element = kind.element
    if isinstance(literal, str) and element == "date":
        if (micros := parse_date(literal)) is not None:
            return micros
    elif isinstance(literal, bool):
        if element == "bool":
            return literal
    elif isinstance(literal, int | float):
        if element in ("int", "float") and math.isfinite(_to_float(literal)):
            return literal
    elif isinstance(literal, str) and element == "string":
        return literal
    typed = format_literal(literal)
    shown = typed if len(typed) <= 60 else f"{typed[:57]}..."
    hint = " null goes with == and != only." if literal is None else ""
    raise UsageError(
        f"Filter field {name!r} is of type {kind}; it cannot be compared with {shown}. "
        f"Expected {_EXAMPLES[element]}.{hint}"
    )


def _to_float(value: int | float) -> float:
    """Return the nearest float64 short of infinity, zero without its sign; NaN stays NaN."""
    if isinstance(value, float):
        return value + 0.0
    try:
        return float(value)
    except OverflowError:
        return read_bounded_float(math.inf if value > 0 else -math.inf)


def _ordered(name: str, kind: FieldType, leaf: Compare) -> Plan:
    """Move the literal to the nearest value that the field can hold and that satisfies it."""
    literal = _check_literal(name, kind, leaf.value)
    assert not isinstance(literal, str)
    is_upper = leaf.operator in ("<", "<=")
    bound = _round(literal, kind.element, is_upper)
    beyond = bound > literal if is_upper else bound < literal
    if beyond or (bound == literal and leaf.operator in ("<", ">")):
        bound = _step(bound, kind.element, -1 if is_upper else 1)
    first, last = _RANGES[kind.element]
    if bound < first if is_upper else bound > last:
        return Constant(False)
    if bound >= last if is_upper else bound <= first:
        return Present(name)
    return Ordered(name, kind, "<=" if is_upper else ">=", bound)


def _round(literal: int | float, element: str, is_upper: bool) -> int | float:
    """Return a value of the type next to the literal, perhaps on the wrong side for floats."""
    if element == "float":
        return _to_float(literal)
    return math.floor(literal) if is_upper else math.ceil(literal)


def _step(value: int | float, element: str, direction: int) -> int | float:
    if element == "float":
        return math.nextafter(value, direction * math.inf) + 0.0
    return value + direction


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
