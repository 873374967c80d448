"""The values of one record: rows as they were read, and what a document may hold of them."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from retrieval.errors import RecordError
from retrieval.filters.schema import INT64, read_bounded_float
from retrieval.types import MetadataValue, Section

MAX_ID_BYTES = 1024
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(slots=True)
class StoredFiles:
    """What an index holds of files, and what became of those when they were read again.

    Attributes
    ----------
    known : by the ids of files, when each was modified (microseconds since 1970) and its size.
    unread : files that are as they are stored, and so were not read.
    failed : files that could not be read, or only in part.
    """

    known: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader is told, and whom it tells.

    Attributes
    ----------
    note : receives a line on what the reader found out and the user should know.
    encoding : of text files, as the user named it; "" to find it.
    types : of the fields of the index that is read for, by name.
    files : of that index.
    """

    note: Callable[[str], None]
    encoding: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    files: StoredFiles = field(default_factory=StoredFiles)


class Row(NamedTuple):
    """One record as it was read.

    ``source`` is the file as the user named it. ``line`` is the 1-based line or row, None where
    the whole file is one record. ``sections`` are those of its text.
    """

    source: str
    line: int | None
    values: Mapping[str, Any]
    sections: tuple[Section, ...] = ()

    def error(self, problem: str) -> RecordError:
        """Return the RecordError that names this record."""
        return RecordError(self.source, self.line, problem)


class Cell(str):
    """The text of a table's cell, whose column holds values of another type.

    As an id, a title or a text it is what was written; as metadata it is ``value``.
    """

    __slots__ = ("value",)
    value: MetadataValue

    def __new__(cls, text: str, value: MetadataValue) -> Cell:  # noqa: D102
        cell = super().__new__(cls, text)
        cell.value = value
        return cell


def read_identifier(row: Row, name: str, value: object) -> str:
    """Return the id as a string of 1 to 1024 bytes without control characters."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string or an integer")
    text = read_text(row, name, value)
    if not text:
        raise row.error(f"{name!r} is empty; expected an id of one character or more")
    control = _CONTROL.search(text)
    if control is not None:
        raise row.error(
            f"{name!r} is {shorten(text)}, with the control character "
            f"U+{ord(control.group()):04X}; expected an id without tabs, line ends and the like"
        )
    if len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES:
        raise row.error(
            f"{name!r} is {len(text.encode())} bytes long; expected at most {MAX_ID_BYTES}"
        )
    return text


def read_text(row: Row, name: str, value: object) -> str:
    """Return the value: a string without NUL that UTF-8 can hold."""
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string")
    problem = find_unwritable(value)
    if problem:
        raise row.error(f"{name!r} holds {problem}")
    return str(value) if isinstance(value, Cell) else value


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


def read_metadata(row: Row, rest: Mapping[str, Any]) -> dict[str, MetadataValue]:
    """Return the further fields, with those of BEIR's nested ``metadata`` under their own names."""
    nested = rest.get("metadata")
    kept = {name: _value(row, name, rest[name]) for name in rest if name != "metadata"}
    if nested is None:
        return kept
    if not isinstance(nested, dict):
        return {**kept, "metadata": _value(row, "metadata", nested)}
    for name, inner in nested.items():
        value = _value(row, name, inner)
        if name in kept and kept[name] != value:
            raise row.error(
                f"{name!r} is a field and also an entry of 'metadata', with another value; "
                f"expected one value per name"
            )
        kept[name] = value
    return kept


def _value(row: Row, name: str, value: Any) -> MetadataValue:
    """Return a metadata value: NaN is null, infinity the largest number, a date ISO text.

    Lists stay lists; objects become JSON text.
    """
    problem = find_unwritable(name)
    if problem:
        raise row.error(f"a field name holds {problem}")
    found = _plain(row, name, value.value if isinstance(value, Cell) else value)
    if isinstance(found, int) and not isinstance(found, bool):
        if not INT64[0] <= found <= INT64[1]:
            raise row.error(f"{name!r} is an integer beyond 64 bits; write it as a string")
    elif isinstance(found, list | dict):
        text = _as_json(row, name, found)
        return text if isinstance(found, dict) else list(found)
    elif isinstance(found, str):
        return read_text(row, name, found)
    kept: MetadataValue = found
    return kept


def _as_json(row: Row, name: str, value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error(f"{name!r} cannot be kept as JSON ({error})") from None
    return read_text(row, name, text)


def _plain(row: Row, name: str, value: Any) -> Any:
    """Return a value as JSON holds it, with the values inside it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return None if math.isnan(value) else read_bounded_float(value)
    if isinstance(value, list | tuple):
        return [_plain(row, name, item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(row, name, item) for key, item in value.items()}
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return str(value)
    number = getattr(value, "item", None)  # a number of numpy's, as Arrow gives float16
    if callable(number):
        return _plain(row, name, number())
    raise row.error(
        f"{name!r} is {type_name(value)}; expected a string, a number, true, false, null, a date "
        f"or a list of these. Leave the column out"
    )


def _number(value: decimal.Decimal) -> int | float | None:
    """Return a decimal as a number: whole ones of 64 bits exactly, others as float64."""
    if value.is_nan():
        return None
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0 and INT64[0] <= value <= INT64[1]:
        return int(value)
    return read_bounded_float(float(value))


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
    return names.get(type(value), f"of type {type(value).__name__}")


def shorten(value: str, limit: int = 60) -> str:
    """Return the value in quotes, cut to ``limit`` characters, safe to print on one line."""
    return repr(value) if len(value) <= limit else repr(value[:limit]) + "..."
