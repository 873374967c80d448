"""A filter as a tree; ``str`` of a tree is its canonical text, which parses to the same tree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import TypeAlias

from retrieval.errors import UsageError
from retrieval.types import Scalar

KEYWORDS = frozenset({"and", "or", "not", "in", "contains", "true", "false", "null"})

WORD = re.compile(r"[^\W\d][\w.-]*")
"""A field name that needs no backticks, unless it is a keyword."""

MAX_DEPTH = 32
"""Servers stop at 100 nested messages or 128 nested brackets; a level takes two."""


@dataclass(frozen=True, slots=True)
class Compare:
    """``field == value`` and the like; ``operator`` is one of == != < <= > >=."""

    field: str
    operator: str
    value: Scalar

    def __str__(self) -> str:
        return f"{format_field(self.field)} {self.operator} {format_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class Member:
    """``field in [values]``, or ``field not in [values]`` where ``negated``."""

    field: str
    values: tuple[Scalar, ...]
    negated: bool = False

    def __str__(self) -> str:
        listing = ", ".join(format_literal(value) for value in self.values)
        return f"{format_field(self.field)} {'not in' if self.negated else 'in'} [{listing}]"


@dataclass(frozen=True, slots=True)
class Contains:
    """``field contains value``: one of the elements of a list is this value."""

    field: str
    value: Scalar

    def __str__(self) -> str:
        return f"{format_field(self.field)} contains {format_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class And:
    """All of the terms hold."""

    terms: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(_enclose(term, And | Or) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the terms holds."""

    terms: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(_enclose(term, Or) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Not:
    """The term does not hold."""

    term: Expression

    def __str__(self) -> str:
        return f"not {_enclose(self.term, And | Or)}"


Expression: TypeAlias = Compare | Member | Contains | And | Or | Not


def format_field(name: str) -> str:
    """Return a field name as it is typed in a filter, in backticks where it needs them."""
    if WORD.fullmatch(name) and name not in KEYWORDS:
        return name
    return "`" + name.replace("`", "``") + "`"


def format_literal(value: Scalar) -> str:
    """Return a literal as it is typed in a filter."""
    return json.dumps(value, ensure_ascii=False)


def check_depth(expression: Expression) -> None:
    """Raise UsageError for a tree that is deeper than backends can take."""
    deepest = 0
    pending = [(expression, 0)]
    while pending:
        node, depth = pending.pop()
        below = depth + (not isinstance(node, Compare | Member | Contains))
        deepest = max(deepest, below)
        pending.extend((child, below) for child in _children(node))
    if deepest > MAX_DEPTH:
        raise UsageError(
            f"The filter nests and, or and not {deepest} levels deep; expected at most "
            f"{MAX_DEPTH}. Write it flatter, with in [...] for many values of one field."
        )


def _children(node: Expression) -> Iterator[Expression]:
    if isinstance(node, And | Or):
        yield from node.terms
    elif isinstance(node, Not):
        yield node.term


def _enclose(term: Expression, kinds: type | UnionType) -> str:
    return f"({term})" if isinstance(term, kinds) else str(term)
