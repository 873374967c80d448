"""``parse_filter``: the text of ``--filter`` as a tree."""

from __future__ import annotations

from dataclasses import dataclass, field

from retrieval.errors import UsageError
from retrieval.filters.tokens import Token, describe_error, tokenize
from retrieval.filters.tree import (
    KEYWORDS,
    And,
    Compare,
    Contains,
    Expression,
    Member,
    Not,
    Or,
    measure_depth,
)
from retrieval.types import Scalar

__all__ = ["MAX_DEPTH", "check_depth", "parse_filter"]

MAX_DEPTH = 32
"""Servers stop at 100 messages or 128 brackets one within the other; a level takes two."""

OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
COMPARISON = "==, !=, <, <=, >, >=, in, not in or contains"
LITERAL = 'a value (a number, "text", true, false or null)'


def parse_filter(text: str) -> Expression:
    """Return the tree of a filter such as ``year >= 2020 and lang in ["en", "de"]``.

    ``not`` binds closer than ``and``, ``and`` closer than ``or``. Nested terms of one kind and
    double negations are merged, so that parentheses which change nothing cost no depth.

    Raises
    ------
    UsageError : the text is not a filter; the message names the column, what was found there
        and what was expected. Also for more than 32 levels of and, or and not.
    """
    expression = _Parser(text).parse()
    check_depth(expression)
    return expression


def check_depth(expression: Expression) -> None:
    """Raise UsageError for a tree that is deeper than backends can take."""
    depth = measure_depth(expression)
    if depth > MAX_DEPTH:
        raise UsageError(
            f"--filter nests and, or and not {depth} levels deep; accepted are {MAX_DEPTH}. "
            f"Write it flatter, with in [...] for many values of one field."
        )


@dataclass
class _Group:
    """What is inside one pair of parentheses, as far as it is read."""

    opening: Token | None = None
    negated: bool = False
    alternatives: list[Expression] = field(default_factory=list)
    terms: list[Expression] = field(default_factory=list)

    def append(self, term: Expression, *, negated: bool) -> None:
        if negated:
            term = term.term if isinstance(term, Not) else Not(term)
        self.terms += term.terms if isinstance(term, And) else [term]

    def end_alternative(self) -> None:
        term = self.terms[0] if len(self.terms) == 1 else And(tuple(self.terms))
        self.alternatives += term.terms if isinstance(term, Or) else [term]
        self.terms = []

    def close(self) -> Expression:
        self.end_alternative()
        if len(self.alternatives) == 1:
            return self.alternatives[0]
        return Or(tuple(self.alternatives))


class _Parser:
    """Keeps its own stack of groups, so that no depth of parentheses exhausts Python's."""

    def __init__(self, text: str) -> None:
        self._tokens = tokenize(text)
        self._next = next(self._tokens)

    def parse(self) -> Expression:
        groups = [_Group()]
        while True:
            negated = False
            while self._accept("not"):
                negated = not negated
            if opening := self._accept("("):
                groups.append(_Group(opening, negated))
                continue
            groups[-1].append(self._comparison(), negated=negated)
            while len(groups) > 1 and self._accept(")"):
                group = groups.pop()
                groups[-1].append(group.close(), negated=group.negated)
            if self._accept("or"):
                groups[-1].end_alternative()
            elif not self._accept("and"):
                self._expect_end(groups[-1].opening)
                return groups[0].close()

    def _expect_end(self, opening: Token | None) -> None:
        if opening is None and self._next.kind == "end":
            return
        if opening is None:
            hint = "This parenthesis closes nothing." if self._next.kind == ")" else ""
            raise self._unexpected("'and', 'or' or the end", hint)
        hint = f"The parenthesis of column {opening.column} is still open."
        raise self._unexpected("'and', 'or' or ')'", hint)

    def _comparison(self) -> Expression:
        name = self._take("field", "a field name", self._hint_at_field())
        for operator in OPERATORS:
            if self._accept(operator):
                return Compare(str(name.value), operator, self._literal())
        if self._accept("contains"):
            return Contains(str(name.value), self._literal())
        negated = self._accept("not") is not None
        if negated and self._next.kind != "in":
            raise self._unexpected("'in' after 'not'")
        if self._accept("in"):
            return Member(str(name.value), self._literals(), negated)
        raise self._unexpected(COMPARISON)

    def _literals(self) -> tuple[Scalar, ...]:
        self._take("[", "'[' and the values, as in [1, 2]")
        values: list[Scalar] = []
        if self._accept("]"):
            return ()
        while True:
            values.append(self._literal())
            if self._accept("]"):
                return tuple(values)
            self._take(",", "',' or ']'")

    def _literal(self) -> Scalar:
        hint = ""
        if self._next.kind == "field":
            lower = self._next.text.lower()
            if lower in ("true", "false", "null", "none"):
                hint = f"Write {'null' if lower == 'none' else lower}."
            else:
                hint = "Text goes in quotes."
        return self._take("literal", LITERAL, hint).value

    def _hint_at_field(self) -> str:
        if self._next.kind in ("literal", "end"):
            return "The field comes first, as in: year >= 2020"
        if self._next.kind in KEYWORDS:
            return "A keyword used as a field name goes in backticks."
        return ""

    def _accept(self, kind: str) -> Token | None:
        token = self._next
        if token.kind != kind:
            return None
        if kind != "end":
            self._next = next(self._tokens)
        return token

    def _take(self, kind: str, expected: str, hint: str = "") -> Token:
        token = self._accept(kind)
        if token is None:
            raise self._unexpected(expected, hint)
        return token

    def _unexpected(self, expected: str, hint: str = "") -> UsageError:
        token = self._next
        if token.kind == "end":
            found = "the end"
        elif len(token.text) > 40:
            found = repr(f"{token.text[:37]}...")
        else:
            found = repr(token.text)
        if not hint and token.kind == "field" and token.text.lower() in ("and", "or", "not", "in"):
            hint = f"Write {token.text.lower()} in small letters."
        return describe_error(token.column, found, expected, hint)
