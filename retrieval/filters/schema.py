"""The type of each metadata field of a corpus, inferred a document at a time and mergeable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from retrieval.errors import UnknownNameError, UsageError
from retrieval.filters.values import (
    EMPTY_LIST,
    Value,
    find_kind,
    load_list,
    read_value,
)
from retrieval.types import Scalar

__all__ = ["FieldType", "Schema", "SchemaBuilder", "infer_schema"]

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

    ints and floats together make a float field; text of several kinds (dates, lists, other)
    makes a string field; anything else of several kinds, or beyond 64 bits, cannot be filtered
    but is kept. Null, NaN, an empty list and a missing field say nothing about the type.

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
                    f"beside id, title and text; leave --filter out."
                )
            raise UnknownNameError("filter field", name, self.kinds)
        kind = self._resolved[name]
        if isinstance(kind, str):
            raise UsageError(
                f"Filter field {name!r} cannot be filtered: its values are of the types {kind}; "
                f"accepted is one type a field, or int with float. Make them alike in the corpus "
                f"and index it again."
            )
        return kind

    def merge(self, other: Schema) -> Schema:
        """Return the schema of the documents of both; order and grouping make no difference."""
        merged = dict(self.kinds)
        for name, kinds in other.kinds.items():
            merged[name] = merged.get(name, frozenset()) | kinds
        return Schema(merged)

    def read(self, metadata: Mapping[str, Scalar], name: str) -> Value | tuple[Value, ...] | None:
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

    def add(self, metadata: Mapping[str, Scalar]) -> None:
        """Take note of one document."""
        for name, value in metadata.items():
            self._kinds.setdefault(name, set()).add(find_kind(value))

    def build(self) -> Schema:
        """Return the schema of what was added so far."""
        return Schema({name: frozenset(kinds) for name, kinds in self._kinds.items()})


def infer_schema(rows: Iterable[Mapping[str, Scalar]]) -> Schema:
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
    if found in ({"bool"}, {"int"}, {"date"}):
        return FieldType(next(iter(found)))
    if found <= {"int", "float"}:
        return FieldType("float")
    lists = {kind for kind in found if kind.startswith(_LIST) or kind == EMPTY_LIST}
    if found == lists:
        return _resolve_list({kind.removeprefix(_LIST) for kind in lists - {EMPTY_LIST}})
    if found <= lists | {"string", "date"}:
        return FieldType("string")
    return ", ".join(sorted(found))


def _resolve_list(elements: set[str]) -> FieldType:
    if len(elements) == 1:
        return FieldType(elements.pop(), is_list=True)
    if elements == {"int", "float"}:
        return FieldType("float", is_list=True)
    return FieldType("string", is_list=not elements)  # lists of several types are plain text


def _read(value: Scalar, kind: FieldType) -> Value | tuple[Value, ...] | None:
    """Return a value as a field of this type holds it, None where it cannot."""
    if not kind.is_list:
        return read_value(value, kind.element)
    elements = load_list(value) if isinstance(value, str) else None
    if elements is None:
        return None
    values = [read_value(item, kind.element) for item in elements if item is not None]
    return None if None in values else tuple(value for value in values if value is not None)
