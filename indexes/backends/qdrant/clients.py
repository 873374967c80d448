"""What other programs find in a point: its text and metadata, where LangChain looks for them.

Values that Qdrant keeps and compares as they are lie there only, and filters of ours use them
there. What Qdrant would change or compare in another way lies in both places: see ``filters``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexes.backends.qdrant.filters import (
    ROOT,
    Json,
    field_path,
    list_payload_indexes,
    make_payload,
)
from retrieval import Document
from retrieval.filters import Schema
from retrieval.filters.schema import INT64, load_list, write_list
from retrieval.types import MetadataValue

__all__ = ["TITLE", "ClientFields"]

TITLE = "title"
"""The metadata key of a document's title, unless the metadata has such a field itself."""

SAME = ("int", "float", "string")
"""Types whose values a client may read where our filters look."""

OTHER_INDEXES = {"bool": "bool", "date": "datetime"}
"""For filters of other programs; ours use other entries."""

PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ClientFields:
    """The payload entries for other programs.

    Attributes
    ----------
    text : the entry of the text; "" if texts are left out.
    metadata : the entry of the metadata.
    """

    text: str
    metadata: str

    def make_payload(self, document: Document, schema: Schema) -> Json:
        """Return text and metadata for other programs, and below ROOT what only filters read.

        Raises
        ------
        UsageError : a value is not of its field's type.
        """
        exact = make_payload(document.metadata, schema)
        shared = {name: exact.pop(name) for name in self._shared_names(schema) if name in exact}
        found = _as_json(document.metadata, schema) | shared
        if document.title and TITLE not in schema.types:
            found.setdefault(TITLE, document.title)
        payload: Json = {self.metadata: found}
        if self.text:
            payload[self.text] = document.text
        return payload | ({ROOT: exact} if exact else {})

    def move_paths(self, condition: Json, schema: Schema) -> Json:
        """Return a filter of ``make_filter`` for points of ``make_payload``."""
        moved: Json = _replace_keys(condition, self._moved_paths(schema))
        return moved

    def list_indexes(self, schema: Schema) -> dict[str, str]:
        """Return the path of every payload entry that is filtered, with the index it wants."""
        moved = self._moved_paths(schema)
        ours = {moved.get(path, path): kind for path, kind in list_payload_indexes(schema).items()}
        theirs = {
            self._path(name): OTHER_INDEXES[kind.element]
            for name, kind in schema.types.items()
            if kind.element in OTHER_INDEXES and _has_path(name)
        }
        return ours | theirs

    def _moved_paths(self, schema: Schema) -> dict[str, str]:
        return {field_path(name): self._path(name) for name in self._shared_names(schema)}

    def _shared_names(self, schema: Schema) -> list[str]:
        types = schema.types.items()
        return [name for name, kind in types if kind.element in SAME and _has_path(name)]

    def _path(self, name: str) -> str:
        key = name if PLAIN_KEY.fullmatch(name) else f'"{name}"'
        return f"{self.metadata}.{key}"


def _has_path(name: str) -> bool:
    """Return whether a JSON path can name the field as it is, without an escape of ours."""
    return field_path(name) == f'{ROOT}."{name}"'


def _replace_keys(part: Any, moved: Mapping[str, str]) -> Any:
    if isinstance(part, list):
        return [_replace_keys(term, moved) for term in part]
    if not isinstance(part, dict):
        return part
    return {
        name: moved.get(value, value) if name == "key" else _replace_keys(value, moved)
        for name, value in part.items()
    }


def _as_json(metadata: Mapping[str, MetadataValue], schema: Schema) -> Json:
    """Return metadata as JSON can hold it: lists as lists, no nulls, no NaN."""
    found: Json = {}
    for name, value in metadata.items():
        kind = schema.types.get(name)
        if value is None or value != value:  # NaN
            continue
        if kind is not None and kind.is_list:
            elements = (load_list(value) if isinstance(value, str) else value) or []
            assert isinstance(elements, list)
            if kept := [element for element in elements if element is not None]:
                found[name] = kept
        elif _is_wide(value):
            found[name] = str(value)
        else:
            found[name] = write_list(value)
    return found


def _is_wide(value: MetadataValue) -> bool:
    """Return whether it is a number that a server's JSON does not hold."""
    if isinstance(value, float):
        return math.isinf(value)
    return isinstance(value, int) and not INT64[0] <= value <= INT64[1]
