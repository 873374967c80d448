"""``parse_filter``: the text of ``--filter`` as a tree."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from retrieval.errors import UsageError
from retrieval.filters.tree import (
    KEYWORDS,
    WORD,
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

__all__ = ["Token", "describe_error", "tokenize", "MAX_DEPTH", "check_depth", "parse_filter"]

NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MAX_DIGITS = 4000
"""The longest whole number that is read; Python refuses more than 4300 digits."""

SYMBOL = re.compile(r"==|!=|<=|>=|<(?!>)|>|[()\[\],]")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|' + r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
BACKTICKED = re.compile(r"`((?:[^`]|``)*)`")
ESCAPE = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
ESCAPES = frozenset("\"'\\/bfnrt")

MISTAKES = {
    "=": "'=='",
    "<>": "'!='",
    "&": "'and'",
    "|": "'or'",
    "!": "'not', or '!='",
    "\u201c": 'straight quotes, as in "text"',
    "\u201d": 'straight quotes, as in "text"',
    "\u2018": "straight quotes, as in 'text'",
    "\u2019": "straight quotes, as in 'text'",
}
"""What people type in other languages: what to write here."""


class Token(NamedTuple):
    """One token.

    Attributes
    ----------
    kind : "field", "literal", "end", or the keyword or symbol itself.
    column : 1 for the first character.
    text : as typed.
    value : the name of a field, the value of a literal.
    """

    kind: str
    column: int
    text: str
    value: Scalar = None


def describe_error(column: int, found: str, expected: str, hint: str = "") -> UsageError:
    """Return the error of a filter that cannot be read, as one line."""
    tail = f" {hint}" if hint else ""
    return UsageError(f"--filter, column {column}: found {found}; expected {expected}.{tail}")


def tokenize(text: str) -> Iterator[Token]:
    """Yield the tokens of a filter, the last of kind "end".

    Raises
    ------
    UsageError : something that is no token, naming its column.
    """
    position = 0
    while position < len(text):
        character = text[position]
        if character.isspace():
            position += 1
            continue
        token = _read(text, position)
        yield token
        position += len(token.text)
    yield Token("end", len(text) + 1, "")


def _read(text: str, position: int) -> Token:
    column = position + 1
    character = text[position]
    if character in "\"'":
        return _string(text, position)
    if character == "`":
        return _backticked(text, position)
    if word := WORD.match(text, position):
        return _word(word[0], column)
    if number := NUMBER.match(text, position):
        return _number(text, number, column)
    if symbol := SYMBOL.match(text, position):
        return Token(symbol[0], column, symbol[0])
    for mistake, instead in MISTAKES.items():
        if text.startswith(mistake, position):
            raise describe_error(column, repr(mistake), instead)
    expected = "a field name, a value, an operator or a parenthesis"
    raise describe_error(column, repr(character), expected)


def _word(word: str, column: int) -> Token:
    if word in ("true", "false", "null"):
        return Token("literal", column, word, json.loads(word))
    return Token(word if word in KEYWORDS else "field", column, word, word)


def _number(text: str, number: re.Match[str], column: int) -> Token:
    if word := re.compile(r"[\w.]+").match(text, number.end()):
        raise describe_error(
            column,
            repr(_shorten(number[0] + word[0])),
            "a number",
            "A field name that begins with a digit goes in backticks.",
        )
    if re.fullmatch(r"-?[0-9]+", number[0]):
        if len(number[0]) > MAX_DIGITS:
            found = f"a number of {len(number[0])} digits"
            raise describe_error(column, found, f"at most {MAX_DIGITS}")
        return Token("literal", column, number[0], int(number[0]))
    value = float(number[0])
    if math.isinf(value):
        found = repr(_shorten(number[0]))
        raise describe_error(column, found, "a number within 64-bit floating point")
    return Token("literal", column, number[0], value)


def _string(text: str, position: int) -> Token:
    quote = text[position]
    match = QUOTED.match(text, position)
    if match is None:
        found = f"text that begins with {quote} and does not end"
        raise describe_error(position + 1, found, f"a closing {quote}")
    body = match[1] if match[1] is not None else match[2]
    pieces = []
    end = 0
    for escape in ESCAPE.finditer(body):
        pieces += [body[end : escape.start()], _unescape(escape[0], position + 2 + escape.start())]
        end = escape.end()
    value = "".join([*pieces, body[end:]])
    _check_characters(value, position + 1)
    return Token("literal", position + 1, match[0], value)


def _unescape(escape: str, column: int) -> str:
    """Return what an escape stands for, or a surrogate pair of two escapes."""
    if escape == r"\'":
        return "'"
    if escape[1] not in ESCAPES and not re.fullmatch(r"(?:\\u[0-9a-fA-F]{4})+", escape):
        expected = "one of " + " ".join(rf"\{name}" for name in "\"'\\/bfnrt") + r" \u0041"
        raise describe_error(column, repr(escape).replace("\\\\", "\\"), expected)
    return str(json.loads(f'"{escape}"'))


def _backticked(text: str, position: int) -> Token:
    match = BACKTICKED.match(text, position)
    if match is None:
        found = "a field name that begins with ` and does not end"
        raise describe_error(position + 1, found, "a closing `")
    name = match[1].replace("``", "`")
    _check_characters(name, position + 1)
    return Token("field", position + 1, match[0], name)


def _check_characters(value: str, column: int) -> None:
    """Refuse half surrogate pairs, which neither Arrow nor Qdrant can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair (U+{ord(value[error.start]):04X})"
        raise describe_error(column, found, "text that UTF-8 can hold") from None


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


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
            f"--filter nests and, or and not {depth} levels deep; expected at most {MAX_DEPTH}. "
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
