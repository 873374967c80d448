"""The type of each metadata field, inferred from one document at a time; schemas can be merged."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NoReturn, TypeAlias

from retrieval.errors import UnknownNameError, UsageError
from retrieval.types import MetadataValue

Value: TypeAlias = bool | int | float | str
"""A value as a typed field holds it; a date is an int, microseconds since 1970 in UTC."""

INT64 = (-(2**63), 2**63 - 1)

WIDE_INT = "int beyond 64 bits"
ROUNDED_INT = "int that float64 rounds"
"""An int field holds it exactly; among floats its comparisons could not be exact."""

EMPTY_LIST = "empty list"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FIRST_DATE = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LAST_DATE = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ](?:[01][0-9]|2[0-3]):[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])?)?"
)


def find_kind(value: MetadataValue) -> str:
    """Return the kind of a value: null, bool, int, float, string, date, "list of int", ...

    NaN is null. A string is a date where it is an ISO 8601 date or date and time. A list is one
    where its values are of one type, and so is its JSON text; else it is a string.
    """
    if isinstance(value, list):
        return _list_kind(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if not INT64[0] <= value <= INT64[1]:
            return WIDE_INT
        return "int" if int(float(value)) == value else ROUNDED_INT
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
    if kinds <= {"int", ROUNDED_INT}:
        return f"list of {ROUNDED_INT}"
    if len(kinds) == 1 and WIDE_INT not in kinds:
        return f"list of {kinds.pop()}"
    return "string"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


STRICT_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
"""Refuses NaN and Infinity with a ValueError."""


def load_list(text: str) -> list[Any] | None:
    """Return the elements of a JSON list, or None for any other text."""
    if text[-1:] != "]":
        return None
    try:
        elements = STRICT_JSON.decode(text)
    except (ValueError, RecursionError):
        return None
    return elements if isinstance(elements, list) else None


def write_list(value: MetadataValue) -> MetadataValue:
    """Return a list as the JSON text that a field of text holds of it; others as they are."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


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
    if not isinstance(value, int) or not INT64[0] <= value <= INT64[1]:
        return None
    if element == "int":
        return value
    return float(value) if int(float(value)) == value else None


def read_bounded_float(value: float) -> float:
    """Return a number as a float field holds it: float64, zero unsigned, infinity the largest."""
    largest = sys.float_info.max
    return min(max(float(value), -largest), largest) + 0.0


def parse_date(text: str) -> int | None:
    """Return microseconds since 1970 in UTC, or None where the text is no ISO 8601 date.

    Dates look like ``2020-12-31`` or ``2020-12-31T23:59:59.123456+01:00``. Seconds, their
    fraction and the offset may be left out, and a blank may stand for the T. A missing time is
    midnight, a missing offset UTC. Digits after the microseconds are cut off.
    """
    if text[4:5] != "-" or not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    micros = (moment - _EPOCH) // _MICROSECOND
    return micros if FIRST_DATE <= micros <= LAST_DATE else None


def format_date(micros: int) -> str:
    """Return a date as ``2020-12-31T23:59:59.123456Z``; sorts as text as it does in time."""
    moment = _EPOCH + micros * _MICROSECOND
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


_LIST = "list of "


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of a field that can be filtered.

    Attributes
    ----------
    element : bool, int (64 bits), float (64 bits), string or date.
    is_list : whether the field holds lists of these; there are no lists of dates.
    """

    element: str
    is_list: bool = False

    def __str__(self) -> str:
        return f"{_LIST if self.is_list else ''}{self.element}"


@dataclass(frozen=True)
class Schema:
    """The kinds of value that were seen in each field, which decide its type.

    ints and floats together make a float field if float64 holds all of the ints exactly. Text
    of several kinds (dates, lists, other) makes a string field. Fields with any other mix, or
    with ints beyond 64 bits, are kept but cannot be filtered. Null, NaN, an empty list and a
    missing field say nothing about the type.

    Parameters
    ----------
    kinds : for each field what ``find_kind`` says of its values, in the order first seen.
    """

    kinds: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def _resolved(self) -> dict[str, FieldType | str | None]:
        return {name: _resolve(kinds) for name, kinds in self.kinds.items()}

    @cached_property
    def types(self) -> dict[str, FieldType]:
        """The fields that can be filtered by value, with their types."""
        found = self._resolved.items()
        return {name: kind for name, kind in found if isinstance(kind, FieldType)}

    @property
    def type_names(self) -> dict[str, str]:
        """The same with the names of the types, such as "int"."""
        return {name: str(kind) for name, kind in self.types.items()}

    def type_of(self, name: str) -> FieldType | None:
        """Return the type of a field, None for one that is null in every document.

        Raises
        ------
        UnknownNameError : there is no such field; the message lists those there are.
        UsageError : the field's values are of several types, or there is no field at all.
        """
        if name not in self.kinds:
            if not self.kinds:
                raise UsageError(
                    f"Unknown filter field {name!r}. The documents of this index have no fields "
                    f"beside id, title and text; leave the filter out."
                )
            raise UnknownNameError("filter field", name, self.kinds)
        kind = self._resolved[name]
        if isinstance(kind, str):
            raise UsageError(
                f"Filter field {name!r} cannot be filtered: its values are of the types {kind}; "
                f"expected one type per field, or float with ints that float64 holds exactly. "
                f"Make them alike in the corpus and index it again."
            )
        return kind

    def merge(self, other: Schema) -> Schema:
        """Return the schema of the documents of both; order and grouping make no difference."""
        merged = dict(self.kinds)
        for name, kinds in other.kinds.items():
            merged[name] = merged.get(name, frozenset()) | kinds
        return Schema(merged)

    def read(
        self, metadata: Mapping[str, MetadataValue], name: str
    ) -> Value | tuple[Value, ...] | None:
        """Return a document's value as the typed field holds it, None for null and missing.

        Raises
        ------
        UsageError : the value is not of the field's type, so the schema is of other documents.
        """
        kind = self.type_of(name)
        value = metadata.get(name)
        if value is None or value != value:  # NaN
            return None
        found = None if kind is None else _read(value, kind)
        if found is None:
            raise UsageError(
                f"Metadata field {name!r} is of type {kind or 'null'}, but a document holds "
                f"{value!r} ({find_kind(value)}). Infer the schema from all of the documents."
            )
        return None if found == () else found

    def to_json(self) -> dict[str, list[str]]:
        """Return what ``from_json`` reads."""
        return {name: sorted(kinds) for name, kinds in self.kinds.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Iterable[str]]) -> Schema:
        """Return the schema that ``to_json`` wrote."""
        return cls({name: frozenset(kinds) for name, kinds in data.items()})


class SchemaBuilder:
    """Collects the kinds of value of each field, a document at a time."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    def add(self, metadata: Mapping[str, MetadataValue]) -> None:
        """Take note of one document."""
        for name, value in metadata.items():
            self._kinds.setdefault(name, set()).add(find_kind(value))

    def build(self) -> Schema:
        """Return the schema of what was added so far."""
        return Schema({name: frozenset(kinds) for name, kinds in self._kinds.items()})


def infer_schema(rows: Iterable[Mapping[str, MetadataValue]]) -> Schema:
    """Return the type of every field of some documents' metadata."""
    builder = SchemaBuilder()
    for metadata in rows:
        builder.add(metadata)
    return builder.build()


def _resolve(kinds: frozenset[str]) -> FieldType | str | None:
    """Return the type that these kinds make, or their listing where they make none."""
    found = kinds - {"null"}
    if not found:
        return None
    if found in ({"bool"}, {"date"}):
        return FieldType(next(iter(found)))
    if found <= {"int", ROUNDED_INT}:
        return FieldType("int")
    if found <= {"int", "float"}:
        return FieldType("float")
    lists = {kind for kind in found if kind.startswith(_LIST) or kind == EMPTY_LIST}
    if found == lists:
        return _resolve_list({kind.removeprefix(_LIST) for kind in lists - {EMPTY_LIST}})
    if found <= lists | {"string", "date"}:
        return FieldType("string")
    return ", ".join(sorted(found))


def _resolve_list(elements: set[str]) -> FieldType:
    if elements and elements <= {"int", ROUNDED_INT}:
        return FieldType("int", is_list=True)
    if len(elements) == 1:
        return FieldType(elements.pop(), is_list=True)
    if elements == {"int", "float"}:
        return FieldType("float", is_list=True)
    return FieldType("string", is_list=not elements)  # lists of several types are plain text


def _read(value: MetadataValue, kind: FieldType) -> Value | tuple[Value, ...] | None:
    """Return a value as a field of this type holds it, None where it cannot."""
    if not kind.is_list:
        text = isinstance(value, list) and kind.element == "string"
        return read_value(write_list(value) if text else value, kind.element)
    elements = load_list(value) if isinstance(value, str) else value
    if not isinstance(elements, list):
        return None
    values = [read_value(item, kind.element) for item in elements if item is not None]
    return None if None in values else tuple(value for value in values if value is not None)
