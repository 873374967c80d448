"""Training pairs as files hold them: one record a query, under the names of several tools.

A record has a query, one positive or a list of them, and any number of negatives:

- millpond: ``query``, ``positive``, ``negatives``;
- sentence-transformers: ``anchor``, ``positive``, ``negative`` or ``negative_1``, ``negative_2``;
- FlagEmbedding: ``query``, ``pos``, ``neg``, both lists;
- tevatron: ``query``, ``positive_passages``, ``negative_passages``, lists of title and text;
- question answering: ``question``, ``answer``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.corpus.formats import parquet_rows, table_cells
from retrieval.corpus.lines import jsonl_rows
from retrieval.corpus.records import Fields, check_distinct
from retrieval.corpus.tables import table_row
from retrieval.corpus.values import Row, find_unwritable, type_name
from retrieval.errors import RecordError

QUERIES = ("query", "anchor", "question")
POSITIVES = ("positive", "positives", "pos", "positive_passages", "answer")
NEGATIVES = ("negative", "negatives", "neg", "negative_passages")
_NUMBERED = re.compile(r"negative_?(\d+)")
_IDENTIFIER = re.compile(r"_?id|.*id|.*_ids", re.IGNORECASE)
ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True)
class Pair:
    """One query, a text that answers it, and texts that do not."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


def file_ending(path: Path) -> str:
    """Return the ending of a file's name, that of what is inside a .gz file."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def file_pairs(path: Path, unread: dict[str, None]) -> Iterator[Pair | RecordError]:
    """Yield the pairs of a file, or what is wrong with a record in its place.

    Parameters
    ----------
    unread : receives the fields that no layout has, ids apart, in the order they are met.

    Raises
    ------
    RecordError : the columns of a table name no pairs.
    StorageError, FailureError : the file cannot be read.
    """
    for row in _rows(path):
        if isinstance(row, RecordError):
            yield row
            continue
        try:
            pairs = _to_pairs(row, unread)
        except RecordError as error:
            yield error
        else:
            yield from pairs


def _rows(path: Path) -> Iterator[Row | RecordError]:
    ending, source = file_ending(path), str(path)
    if ending in (".csv", ".tsv"):
        yield from _table_rows(path, tabs=ending == ".tsv")
    elif ending == ".parquet":
        try:
            yield from parquet_rows(path, source, Fields(QUERIES, POSITIVES))
        except RecordError as error:
            if error.line is not None:
                raise
            raise RecordError(source, None, _missing_columns(error.problem)) from error
    else:
        yield from jsonl_rows(path, source)


def _table_rows(path: Path, *, tabs: bool) -> Iterator[Row | RecordError]:
    """Yield the rows of a table below its header; an empty cell is no value."""
    columns: list[str] = []
    source = str(path)
    for line, cells in table_cells(path, source, tabs=tabs):
        if isinstance(cells, RecordError):
            if not columns:
                raise cells  # without a header no later row can be read
            yield cells
        elif not columns:
            columns = [cell.strip() for cell in cells]
            listing = ", ".join(repr(name) for name in columns[:8])
            if not (set(columns) & set(QUERIES) and set(columns) & set(POSITIVES)):
                problem = _missing_columns(f"the columns are {listing}")
                raise RecordError(source, line, problem)
            check_distinct(source, line, columns)
        else:
            row = table_row(source, line, columns, cells)
            yield row if isinstance(row, RecordError) else _listed(row)


def _listed(row: Row) -> Row | RecordError:
    """Return the row with its lists, which a table holds as JSON text."""
    values: dict[str, Any] = {}
    for name, cell in row.values.items():
        values[name] = cell
        if name in NEGATIVES or _NUMBERED.fullmatch(name):
            values[name] = cell if cell.strip() else None
        if name in (*POSITIVES, *NEGATIVES)[1:] and cell.lstrip().startswith("["):
            try:
                values[name] = json.loads(cell)
            except ValueError:
                return row.error(
                    f"{name!r} looks like a list and is no JSON: {cell[:40]!r}; expected a text, "
                    f'or a list such as ["one", "two"]'
                )
    return row._replace(values=values)


def _missing_columns(found: str) -> str:
    return (
        f"{found.partition(';')[0]}; the columns query and positive are needed (or "
        f"{' or '.join(QUERIES[1:])}, {' or '.join(POSITIVES[1:])}); negatives is optional"
    )


def _to_pairs(row: Row, unread: dict[str, None]) -> list[Pair]:
    """Return a pair for each positive of the record, or raise RecordError with what is wrong."""
    query_name = _first(row, QUERIES)
    positive_name = _first(row, POSITIVES)
    query = _text(row, query_name, row.values[query_name])
    positives = _texts(row, positive_name)
    if not positives:
        raise row.error(f"{positive_name!r} is an empty list; expected one text or more")
    names = _negative_names(row)
    negatives = tuple(text for name in names for text in _texts(row, name))
    right = {text.strip() for text in positives}
    for index, text in enumerate(negatives):
        if text.strip() in right:
            raise row.error(f"negative {index + 1} equals the positive: {text.strip()[:60]!r}")
    used = {query_name, positive_name, *names}
    for name, value in row.values.items():
        if name not in used and value is not None and not _IDENTIFIER.fullmatch(name):
            unread.setdefault(name)
    return [Pair(query, positive, negatives) for positive in positives]


def _first(row: Row, names: tuple[str, ...]) -> str:
    """Return the first of the names that the record has a value for."""
    for name in names:
        if row.values.get(name) is not None:
            return name
    keys = ", ".join(repr(key) for key in list(row.values)[:8]) or "nothing"
    raise row.error(
        f"the pair has no {names[0]!r}; it has {keys}. Expected one of {', '.join(names)}"
    )


def _negative_names(row: Row) -> list[str]:
    """Return the fields that hold negatives: one, or numbered ones."""
    plain = [name for name in NEGATIVES if row.values.get(name) is not None]
    numbered = [name for name in row.values if _NUMBERED.fullmatch(name)]
    if len(plain) + bool(numbered) > 1:
        first, second = [*plain, *numbered][:2]
        raise row.error(f"{first!r} and {second!r} are both given; expected one of them")
    if plain:
        return plain
    return sorted(
        (name for name in numbered if row.values[name] is not None),
        key=lambda name: int(_NUMBERED.fullmatch(name)[1]),  # type: ignore[index]
    )


def _texts(row: Row, name: str) -> tuple[str, ...]:
    """Return the text or texts of a field."""
    found = row.values[name]
    if isinstance(found, str | Mapping):
        return (_text(row, name, found),)
    if not isinstance(found, list):
        raise row.error(f"{name!r} is {type_name(found)}; expected a string or a list of strings")
    return tuple(_text(row, f"{name}[{index}]", text) for index, text in enumerate(found))


def _text(row: Row, name: str, value: object) -> str:
    """Return a text; that of an object is its title and its text."""
    if isinstance(value, Mapping):
        parts = [value.get("title"), value.get("text")]
        if not isinstance(parts[1], str) or not isinstance(parts[0] or "", str):
            keys = ", ".join(repr(key) for key in list(value)[:8]) or "nothing"
            raise row.error(f"{name!r} is an object of {keys}; expected one with a string 'text'")
        value = " ".join(str(part) for part in parts if part)
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string")
    if not value.strip():
        raise row.error(f"{name!r} is empty; expected text")
    problem = find_unwritable(value)
    if problem:
        raise row.error(f"{name!r} holds {problem}")
    return value
