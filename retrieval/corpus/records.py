"""``to_document`` and ``to_query``: one record of a source, checked."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from retrieval.errors import RecordError
from retrieval.types import Document, Query, Scalar

__all__ = [
    "DOCUMENT_FIELDS",
    "MAX_ID_BYTES",
    "QUERY_FIELDS",
    "Fields",
    "Row",
    "check_columns",
    "read_id",
    "to_document",
    "to_query",
]

MAX_ID_BYTES = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns that may hold the id and the text; the first that a record has is used."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]


DOCUMENT_FIELDS = Fields(("_id", "doc_id", "docid", "id"), ("text", "contents", "content", "body"))
QUERY_FIELDS = Fields(("_id", "query_id", "id", "qid"), ("text", "query"))


class Row(NamedTuple):
    """One record as it was read.

    ``source`` is the file as the user named it. ``line`` is the 1-based line or row, None where
    the whole file is one record.
    """

    source: str
    line: int | None
    values: Mapping[str, Any]

    def error(self, problem: str) -> RecordError:
        """Return the RecordError that names this record."""
        return RecordError(self.source, self.line, problem)


def to_document(row: Row) -> Document:
    """Return the record as a Document.

    Raises
    ------
    RecordError : id or text is missing or of a wrong type, or a value cannot be kept.
    """
    id_field, text_field = _find_fields(row, DOCUMENT_FIELDS)
    doc_id = _identifier(row, id_field)
    text = _string(row, text_field, row.values[text_field])
    title = row.values.get("title")
    title = "" if title is None else _string(row, "title", title)
    rest = {
        name: value
        for name, value in row.values.items()
        if name not in (id_field, text_field, "title")
    }
    return Document(doc_id, text, title, _metadata(row, rest) if rest else {})


def read_id(row: Row, fields: Fields = DOCUMENT_FIELDS) -> str:
    """Return the id of a record.

    Raises
    ------
    RecordError : it is missing or of a wrong type.
    """
    return _identifier(row, _find_field(row, "id", fields.ids))


def to_query(row: Row) -> Query:
    """Return the record as a Query; columns other than id and text are left out.

    Raises
    ------
    RecordError : id or text is missing, blank or of a wrong type.
    """
    id_field, text_field = _find_fields(row, QUERY_FIELDS)
    query_id = _identifier(row, id_field)
    text = _string(row, text_field, row.values[text_field])
    if not text.strip():
        raise row.error(f"{text_field!r} is blank; expected a query of one character or more")
    return Query(query_id, text)


def check_columns(source: str, line: int | None, columns: Sequence[str], fields: Fields) -> None:
    """Raise RecordError unless a table's columns have distinct names, an id and a text."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        problem = (
            f"two columns are called {twice[0]!r}; column names must differ. Rename one of them"
        )
        raise RecordError(source, line, problem)
    listing = ", ".join(repr(name) for name in columns[:20])
    for what, names in (("id", fields.ids), ("text", fields.texts)):
        if not set(names) & set(columns):
            problem = (
                f"the columns are {listing}; none of them is the {what} (expected one of "
                f"{', '.join(names)}). Add a header row, or rename the column"
            )
            raise RecordError(source, line, problem)


def _find_fields(row: Row, fields: Fields) -> tuple[str, str]:
    """Return the names of the row's id and text columns."""
    return _find_field(row, "id", fields.ids), _find_field(row, "text", fields.texts)


def _find_field(row: Row, what: str, names: Sequence[str]) -> str:
    for name in names:
        if name in row.values:
            return name
    keys = ", ".join(shorten(name, 40) for name in list(row.values)[:8]) or "no field"
    raise row.error(f"no {what} among {keys}; expected one of {', '.join(names)}")


def _identifier(row: Row, name: str) -> str:
    """Return the id as a string of 1 to 1024 bytes without control characters."""
    value = row.values[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string or an integer")
    value = _string(row, name, value)
    if not value:
        raise row.error(f"{name!r} is empty; expected an id of one character or more")
    control = _CONTROL.search(value)
    if control is not None:
        raise row.error(
            f"{name!r} is {shorten(value)}, with the control character "
            f"U+{ord(control.group()):04X}; expected an id without tabs, line ends and the like"
        )
    if len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES:
        raise row.error(
            f"{name!r} is {len(value.encode())} bytes long; expected at most {MAX_ID_BYTES}"
        )
    return value


def _string(row: Row, name: str, value: object) -> str:
    """Return the value: a string without NUL that UTF-8 can hold."""
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string")
    problem = find_unwritable(value)
    if problem:
        raise row.error(f"{name!r} holds {problem}")
    return value


def find_unwritable(value: str) -> str:
    """Return what is in a string that our files cannot store, "" if there is nothing."""
    nul = value.find("\0")
    if nul >= 0:
        return f"a NUL character at position {nul + 1}; expected text without NUL"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return (
                f"half of a surrogate pair (U+{ord(value[error.start]):04X}) at position "
                f"{error.start + 1}; expected text that UTF-8 can hold"
            )
    return ""


def _metadata(row: Row, rest: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the further columns as scalars, with BEIR's nested ``metadata`` flattened in."""
    nested = rest.get("metadata")
    kept = {name: _scalar(row, name, rest[name]) for name in rest if name != "metadata"}
    if nested is None:
        return kept
    if not isinstance(nested, dict):
        return {**kept, "metadata": _scalar(row, "metadata", nested)}
    for name, value in nested.items():
        scalar = _scalar(row, name, value)
        if name in kept and kept[name] != scalar:
            raise row.error(
                f"{name!r} is a field and also an entry of 'metadata', with another value; "
                f"expected one value per name"
            )
        kept[name] = scalar
    return kept


def _scalar(row: Row, name: str, value: Any) -> Scalar:
    """Return a metadata value with its own type; lists and objects as JSON text, dates as ISO."""
    problem = find_unwritable(name)
    if problem:
        raise row.error(f"a field name holds {problem}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise row.error(f"{name!r} is an integer beyond 64 bits; write it as a string")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise row.error(f"{name!r} is {value}; expected a finite number or null")
        return value
    if isinstance(value, list | tuple | dict):
        try:
            value = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
        except (TypeError, ValueError) as error:
            raise row.error(f"{name!r} cannot be kept as JSON text ({error})") from None
    elif not isinstance(value, str):
        try:
            value = _plain(value)
        except TypeError:
            raise row.error(
                f"{name!r} is {type_name(value)}; expected a string, a number, true, false, null "
                f"or a date. Leave the column out"
            ) from None
    return _string(row, name, value)


def _plain(value: object) -> str:
    """Return a date, a time or a decimal as text; any other type is a TypeError."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | decimal.Decimal):
        return str(value)
    raise TypeError(f"it holds {type_name(value)}")


def type_name(value: object) -> str:
    """Return what JSON calls the value's type, with an article."""
    names = {
        bool: "true or false",
        int: "an integer",
        float: "a number with a fraction",
        list: "a list",
        dict: "an object",
        type(None): "null",
        str: "a string",
        bytes: "binary data",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def shorten(value: str, limit: int = 60) -> str:
    """Return the value in quotes, cut to ``limit`` characters, safe to print on one line."""
    return ascii(value) if len(value) <= limit else ascii(value[:limit]) + "..."
