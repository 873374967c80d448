"""What one metadata value is to a filter: its kind, and its value as a typed field holds it."""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any, NoReturn, TypeAlias

from retrieval.types import Scalar

__all__ = [
    "INT64",
    "LAST_DATE",
    "FIRST_DATE",
    "Value",
    "find_kind",
    "format_date",
    "parse_date",
    "load_list",
    "read_bounded_float",
    "read_value",
]

Value: TypeAlias = bool | int | float | str
"""A value as a typed field holds it; a date is an int, microseconds since 1970 in UTC."""

INT64 = (-(2**63), 2**63 - 1)

WIDE_INT = "int beyond 64 bits"
EMPTY_LIST = "empty list"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_DATE = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_DATE = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def find_kind(value: Scalar) -> str:
    """Return the kind of a value: null, bool, int, float, string, date, "list of int", ...

    NaN is null. A string is a date where it is an ISO 8601 date or date and time, and a list
    where it is the JSON text of a flat list of values of one type, as the readers keep lists.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if INT64[0] <= value <= INT64[1] else WIDE_INT
    if isinstance(value, float):
        return "null" if math.isnan(value) else "float"
    if value[:1] == "[":
        elements = load_list(value)
        return "string" if elements is None else _list_kind(elements)
    return "string" if parse_date(value) is None else "date"


def _list_kind(elements: list[Any]) -> str:
    kinds = set()
    for element in elements:
        if isinstance(element, list | dict):
            return "string"
        kinds.add("string" if isinstance(element, str) else find_kind(element))
    kinds.discard("null")
    if not kinds:
        return EMPTY_LIST
    if kinds <= {"int", "float"}:
        return "list of float" if "float" in kinds else "list of int"
    if len(kinds) == 1 and WIDE_INT not in kinds:
        return f"list of {kinds.pop()}"
    return "string"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def load_list(text: str) -> list[Any] | None:
    """Return the elements of a JSON list, or None for any other text."""
    if text[-1:] != "]":
        return None
    try:
        elements = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return elements if isinstance(elements, list) else None


def read_value(value: Any, element: str) -> Value | None:
    """Return a value that is not null as a field of this type holds it, None where it cannot."""
    if element == "string":
        return value if isinstance(value, str) else None
    if element == "date":
        return parse_date(value) if isinstance(value, str) else None
    if isinstance(value, bool) or element == "bool":
        return value if isinstance(value, bool) and element == "bool" else None
    if isinstance(value, float):
        return read_bounded_float(value) if element == "float" else None
    if isinstance(value, int) and INT64[0] <= value <= INT64[1]:
        return value if element == "int" else float(value)
    return None


def read_bounded_float(value: float) -> float:
    """Return a number as a float field holds it: float64, zero unsigned, infinity the largest."""
    largest = sys.float_info.max
    return min(max(float(value), -largest), largest) + 0.0


def parse_date(text: str) -> int | None:
    """Return microseconds since 1970 in UTC, or None where the text is no ISO 8601 date.

    Accepted are ``2020-12-31`` and ``2020-12-31T23:59:59.123456+01:00``; seconds, their
    fraction and the offset may be left out, a blank may stand for the T. Midnight and UTC are
    meant where nothing is said. Digits behind the microseconds are cut off.
    """
    if text[4:5] != "-":
        return None
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    hour, minute, second = int(match[4] or 0), int(match[5] or 0), int(match[6] or 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        day = date(int(match[1]), int(match[2]), int(match[3])).toordinal() - _EPOCH.toordinal()
    except ValueError:
        return None
    fraction = int((match[7] or "").ljust(6, "0")[:6])
    micros = (((24 * day + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction
    zone = match[8] or "Z"
    if zone != "Z":
        offset_hours, offset_minutes = int(zone[1:3]), int(zone[-2:])
        if offset_hours > 23 or offset_minutes > 59:
            return None
        offset = (60 * offset_hours + offset_minutes) * 60_000_000
        micros -= offset if zone[0] == "+" else -offset
    return micros if FIRST_DATE <= micros <= LAST_DATE else None


def format_date(micros: int) -> str:
    """Return a date as ``2020-12-31T23:59:59.123456Z``; sorts as text as it does in time."""
    moment = _EPOCH + micros * _MICROSECOND
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
