"""``parse_filter``: the text of ``--filter`` as a tree."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from retrieval.errors import UsageError, check_type
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
    check_depth,
)
from retrieval.types import Scalar

NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MAX_DIGITS = 4000
"""The longest whole number that is read; Python refuses more than 4300 digits."""

MAX_CHARACTERS = 65_536
MAX_COMPARISONS = 1000
MAX_PARENTHESES = 100
"""How much of a filter is read; a server reads those of strangers."""

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
"""What people type in other languages, with what to write here."""

OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
COMPARISON = "==, !=, <, <=, >, >=, in, not in or contains"
LITERAL = 'a value (a number, "text", true, false or null)'


class _Token(NamedTuple):
    """One token.

    Attributes
    ----------
    kind : "field", "literal", "end", or the keyword or symbol itself.
    column : 1 for the first character.
    text : as typed.
    value : the name of a field, or the value of a literal.
    """

    kind: str
    column: int
    text: str
    value: Scalar = None


def _error(column: int, found: str, expected: str, hint: str = "") -> UsageError:
    """Return the error of a filter that cannot be read, as one line."""
    tail = f" {hint}" if hint else ""
    return UsageError(f"Filter, column {column}: found {found}; expected {expected}.{tail}")


def _tokenize(text: str) -> Iterator[_Token]:
    """Yield the tokens of a filter, the last of kind "end"; raise for anything else."""
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        token = _read(text, position)
        yield token
        position += len(token.text)
    yield _Token("end", len(text) + 1, "")


def _read(text: str, position: int) -> _Token:
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
        return _Token(symbol[0], column, symbol[0])
    for mistake, instead in MISTAKES.items():
        if text.startswith(mistake, position):
            raise _error(column, repr(mistake), instead)
    expected = "a field name, a value, an operator or a parenthesis"
    raise _error(column, repr(character), expected)


def _word(word: str, column: int) -> _Token:
    if word in ("true", "false", "null"):
        return _Token("literal", column, word, json.loads(word))
    return _Token(word if word in KEYWORDS else "field", column, word, word)


def _number(text: str, number: re.Match[str], column: int) -> _Token:
    if word := re.compile(r"[\w.]+").match(text, number.end()):
        raise _error(
            column,
            repr(_shorten(number[0] + word[0])),
            "a number",
            "A field name that begins with a digit goes in backticks.",
        )
    if re.fullmatch(r"-?[0-9]+", number[0]):
        if len(number[0]) > MAX_DIGITS:
            found = f"a number of {len(number[0])} digits"
            raise _error(column, found, f"at most {MAX_DIGITS}")
        return _Token("literal", column, number[0], int(number[0]))
    value = float(number[0])
    if math.isinf(value):
        found = repr(_shorten(number[0]))
        raise _error(column, found, "a number within 64-bit floating point")
    return _Token("literal", column, number[0], value)


def _string(text: str, position: int) -> _Token:
    quote = text[position]
    match = QUOTED.match(text, position)
    if match is None:
        found = f"text that begins with {quote} and does not end"
        raise _error(position + 1, found, f"a closing {quote}")
    body = match[1] if match[1] is not None else match[2]
    value = ESCAPE.sub(lambda escape: _unescape(escape[0], position + 2 + escape.start()), body)
    _check_characters(value, position + 1)
    return _Token("literal", position + 1, match[0], value)


def _unescape(escape: str, column: int) -> str:
    """Return the character of an escape, or of two that form a surrogate pair."""
    if escape == r"\'":
        return "'"
    if escape[1] not in ESCAPES and not re.fullmatch(r"(?:\\u[0-9a-fA-F]{4})+", escape):
        expected = "one of " + " ".join(rf"\{name}" for name in "\"'\\/bfnrt") + r" \u0041"
        raise _error(column, repr(escape).replace("\\\\", "\\"), expected)
    return str(json.loads(f'"{escape}"'))


def _backticked(text: str, position: int) -> _Token:
    match = BACKTICKED.match(text, position)
    if match is None:
        found = "a field name that begins with ` and does not end"
        raise _error(position + 1, found, "a closing `")
    name = match[1].replace("``", "`")
    _check_characters(name, position + 1)
    return _Token("field", position + 1, match[0], name)


def _check_characters(value: str, column: int) -> None:
    """Refuse half a surrogate pair, which neither Arrow nor Qdrant can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair (U+{ord(value[error.start]):04X})"
        raise _error(column, found, "text that UTF-8 can hold") from None


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def parse_filter(text: str) -> Expression:
    """Return the tree of a filter such as ``year >= 2020 and lang in ["en", "de"]``.

    ``not`` binds closer than ``and``, ``and`` closer than ``or``. Nested terms of one kind and
    double negations are merged, so that parentheses which change nothing cost no depth.

    Raises
    ------
    UsageError : the text is not a filter; the message names the column, what was found there
        and what was expected. Also for more than 32 levels of and, or and not, 65,536
        characters, 1,000 comparisons or 100 parentheses inside each other.
    """
    check_type("The filter", text, str, "a text, such as 'year >= 2020'")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"The filter is {len(text):,} characters long; expected at most {MAX_CHARACTERS:,}. "
            f"Mark the documents in a field of their own, and filter by that."
        )
    expression = _Parser(text).parse()
    check_depth(expression)
    return expression


@dataclass
class _Group:
    """What was read so far inside one pair of parentheses."""

    opening: _Token | None = None
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
    """Keeps its own stack of groups, so that deep parentheses do not exhaust Python's."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokenize(text)
        self._next = next(self._tokens)
        self._comparisons = 0

    def parse(self) -> Expression:
        groups = [_Group()]
        while True:
            negated = False
            while self._accept("not"):
                negated = not negated
            if opening := self._accept("("):
                groups.append(_Group(opening, negated))
                if len(groups) > MAX_PARENTHESES + 1:
                    found = f"parenthesis {MAX_PARENTHESES + 1} inside the others"
                    raise _error(opening.column, found, f"at most {MAX_PARENTHESES}")
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

    def _expect_end(self, opening: _Token | None) -> None:
        if opening is None and self._next.kind == "end":
            return
        if opening is None:
            hint = "This parenthesis closes nothing." if self._next.kind == ")" else ""
            raise self._unexpected("'and', 'or' or the end", hint)
        hint = f"The parenthesis of column {opening.column} is still open."
        raise self._unexpected("'and', 'or' or ')'", hint)

    def _comparison(self) -> Expression:
        name = self._take("field", "a field name", self._hint_at_field())
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            hint = "Use in [...] for many values of one field."
            found = f"comparison {self._comparisons}"
            raise _error(name.column, found, f"at most {MAX_COMPARISONS}", hint)
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

    def _accept(self, kind: str) -> _Token | None:
        token = self._next
        if token.kind != kind:
            return None
        if kind != "end":
            self._next = next(self._tokens)
        return token

    def _take(self, kind: str, expected: str, hint: str = "") -> _Token:
        token = self._accept(kind)
        if token is None:
            raise self._unexpected(expected, hint)
        return token

    def _unexpected(self, expected: str, hint: str = "") -> UsageError:
        token = self._next
        found = "the end" if token.kind == "end" else repr(_shorten(token.text))
        if not hint and token.kind == "field" and token.text.lower() in ("and", "or", "not", "in"):
            hint = f"Write {token.text.lower()} in small letters."
        return _error(token.column, found, expected, hint)
