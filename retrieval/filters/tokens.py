"""The text of a filter as tokens, each with its column."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from retrieval.errors import UsageError
from retrieval.filters.tree import KEYWORDS, WORD
from retrieval.types import Scalar

__all__ = ["Token", "describe_error", "tokenize"]

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
