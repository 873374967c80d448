"""``DocumentReader`` and ``to_query``: one record of a source, checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from retrieval.corpus.roles import (
    CONTENT,
    GUESSED_TEXTS,
    IDS,
    NO_TITLE,
    TEXTS,
    TITLE,
    Layout,
    find_spelling,
    look_up,
    template_fields,
)
from retrieval.corpus.values import (
    Row,
    read_identifier,
    read_metadata,
    read_text,
    shorten,
    type_name,
)
from retrieval.errors import RecordError, UsageError
from retrieval.types import Document, Query

_HASH_BYTES = 12
_KINDS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Fields:
    """The columns that may hold the id and the text; the first that a record has is used."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]


QUERY_FIELDS = Fields(("_id", "query_id", "id", "qid"), ("text", "query"))


class _Found(NamedTuple):
    """The fields of records that have the same ones; "" where a role is not one of them."""

    id: str
    title: str
    texts: tuple[str, ...]
    rest: tuple[str, ...]


class DocumentReader:
    """Turns records into documents.

    Parameters
    ----------
    layout : the fields that are named; for the others, the first of the usual ones that a record
        has, exactly as it is spelled or else in any case.
    """

    def __init__(self, layout: Layout) -> None:
        self.makes_ids = layout.id == CONTENT
        self._layout = layout
        self._ids = (layout.id,) if layout.id else IDS
        self._titles = (TITLE,) if layout.title in ("", NO_TITLE) else (layout.title,)
        self._template = template_fields(layout.template)
        self._known: dict[tuple[str, ...], _Found] = {}

    def __call__(self, row: Row) -> Document:
        """Return the record as a Document.

        Raises
        ------
        RecordError : id or text is missing or of a wrong type, or a value cannot be kept.
        """
        found = self._find(row.values)
        doc_id = self._read_id(row, found)
        text = self._read_text(row, found)
        if found.title:
            title = row.values[found.title]
        else:
            title = None if self._titles == (TITLE,) else look_up(row.values, self._titles[0])[1]
        title = "" if title is None else read_text(row, found.title or "title", title)
        rest = {name: row.values[name] for name in found.rest}
        metadata = read_metadata(row, rest) if rest else {}
        return Document(doc_id, text, title, metadata, row.sections)

    def _find(self, values: Mapping[str, Any]) -> _Found:
        key = tuple(values)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KINDS_KEPT:
                self._known.clear()
            found = self._known[key] = self._resolve(key)
        return found

    def _resolve(self, fields: tuple[str, ...]) -> _Found:
        doc_id = find_spelling(fields, () if self.makes_ids else self._ids) or ""
        title = find_spelling(fields, self._titles) or ""
        if self._layout.template:
            # Other fields of a template can still be filtered by.
            usual = (find_spelling(fields, (name,)) for name in (*TEXTS, *GUESSED_TEXTS))
            asked = {find_spelling(fields, (name,)) for name in self._template}
            texts: tuple[str, ...] = tuple({name for name in usual if name and name in asked})
        elif self._layout.text:
            spelled = (find_spelling(fields, (name,)) for name in self._layout.text)
            texts = tuple(name for name in spelled if name)
        else:
            text = find_spelling(fields, TEXTS)
            texts = (text,) if text else ()
        taken = {doc_id, title, *texts}
        return _Found(doc_id, title, texts, tuple(name for name in fields if name not in taken))

    def _read_id(self, row: Row, found: _Found) -> str:
        if self.makes_ids:
            whole = json.dumps(dict(row.values), sort_keys=True, ensure_ascii=False, default=str)
            content = whole.encode(errors="surrogatepass")
            return blake2b(content, digest_size=_HASH_BYTES).hexdigest()
        if found.id:
            return read_identifier(row, found.id, row.values[found.id])
        value = look_up(row.values, self._layout.id)[1] if self._layout.id else None
        if value is None:
            raise _missing(row, "id", self._ids)
        return read_identifier(row, self._layout.id, value)

    def _read_text(self, row: Row, found: _Found) -> str:
        names = self._layout.text
        if self._layout.template:
            parts = {name: _shown(row, name) for name in self._template}
            return _fill(self._layout.template, parts)
        if not names:
            if not found.texts:
                raise _missing(row, "text", TEXTS)
            return read_text(row, found.texts[0], row.values[found.texts[0]])
        present = [(name, *look_up(row.values, name)) for name in names]
        if not any(there for _, there, _ in present):
            raise _missing(row, "text", names)
        if len(present) == 1:
            return read_text(row, names[0], present[0][2])
        texts = [read_text(row, name, value) for name, _, value in present if value is not None]
        return "\n".join(text for text in texts if text)


def _shown(row: Row, name: str) -> str:
    """Return the value of a field of a template, "" where it is missing or null."""
    _, value = look_up(row.values, name)
    if value is None:
        return ""
    if isinstance(value, str):
        return read_text(row, name, value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise row.error(f"{name!r} is {type_name(value)}; expected a string or a number in a template")


def _fill(template: str, parts: Mapping[str, str]) -> str:
    from string import Formatter

    pieces = Formatter().parse(template)
    return "".join(before + (parts[name] if name else "") for before, name, _, _ in pieces)


def read_documents(source: str, items: Iterable[object]) -> Iterator[Document]:
    """Yield documents, and objects with the usual fields as documents.

    Raises
    ------
    RecordError : an object lacks the id or the text, or a value cannot be kept.
    UsageError : something is neither.
    """
    if isinstance(items, Mapping | bytes) or not isinstance(items, Iterable):
        raise UsageError(
            f"The corpus is of type {type(items).__name__}; expected a list of Document(doc_id, "
            "text), or of dicts with id and text, or the name of a file or folder."
        )
    build = DocumentReader(Layout())
    for number, item in enumerate(items, start=1):
        if isinstance(item, Document):
            yield _check_document(Row(source, number, item.metadata), item)
        elif isinstance(item, Mapping):
            _check_names(Row(source, number, item))
            yield build(Row(source, number, item))
        else:
            raise UsageError(
                f"Number {number} of {source} is of type {type(item).__name__}; expected a "
                "Document(doc_id, text), or a dict with id and text. The name of a file or folder "
                "goes alone: Index.create(path, encoder, 'docs')."
            )


def _check_document(row: Row, document: Document) -> Document:
    """Return a document as one with the same values would be read from a file."""
    doc_id = read_identifier(row, "doc_id", document.doc_id)
    text = read_text(row, "text", document.text)
    title = read_text(row, "title", document.title)
    if not isinstance(document.metadata, Mapping):
        raise row.error(f"'metadata' is {type_name(document.metadata)}; expected a dict")
    _check_names(row)
    metadata = read_metadata(row, document.metadata)
    return Document(doc_id, text, title, metadata, document.sections)


def _check_names(row: Row) -> None:
    """Raise RecordError for a field whose name is no string."""
    for name in row.values:
        if not isinstance(name, str):
            raise row.error(f"the field name {name!r} is {type_name(name)}; expected a string")


def read_id(row: Row) -> str:
    """Return the id of a document's record.

    Raises
    ------
    RecordError : it is missing or of a wrong type.
    """
    name = _find_field(row, "id", IDS)
    return read_identifier(row, name, row.values[name])


def to_query(row: Row) -> Query:
    """Return the record as a Query; columns other than id and text are left out.

    Raises
    ------
    RecordError : id or text is missing, blank or of a wrong type.
    """
    id_field = _find_field(row, "id", QUERY_FIELDS.ids)
    text_field = _find_field(row, "text", QUERY_FIELDS.texts)
    query_id = read_identifier(row, id_field, row.values[id_field])
    text = read_text(row, text_field, row.values[text_field])
    if not text.strip():
        raise row.error(f"{text_field!r} is blank; expected a query of one character or more")
    return Query(query_id, text)


def check_distinct(source: str, line: int | None, columns: Sequence[str]) -> None:
    """Raise RecordError where two columns of a table have the same name."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        problem = (
            f"two columns are called {twice[0]!r}; column names must differ. Rename one of them"
        )
        raise RecordError(source, line, problem)


def check_columns(source: str, line: int | None, columns: Sequence[str], fields: Fields) -> None:
    """Raise RecordError unless a table's columns have distinct names, an id and a text."""
    check_distinct(source, line, columns)
    listing = ", ".join(repr(name) for name in columns[:20])
    for what, names in (("id", fields.ids), ("text", fields.texts)):
        if not set(names) & set(columns):
            problem = (
                f"the columns are {listing}; none of them is the {what} (expected one of "
                f"{', '.join(names)}). Add a header row, or rename the column"
            )
            raise RecordError(source, line, problem)


def _find_field(row: Row, what: str, names: Sequence[str]) -> str:
    name = find_spelling(row.values, names)
    if name is None:
        raise _missing(row, what, names)
    return name


def _missing(row: Row, what: str, names: Sequence[str]) -> RecordError:
    keys = ", ".join(shorten(name, 40) for name in list(row.values)[:8]) or "no field"
    return row.error(f"no {what} among {keys}; expected one of {', '.join(names)}")
