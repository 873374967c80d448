"""CSV and TSV files as records: delimiter, encoding, header and types of columns are found."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from retrieval.corpus.formats import Dialect, split_cells, table_cells
from retrieval.corpus.labelled import match_columns
from retrieval.corpus.lines import (
    MAX_RECORD_BYTES,
    guess_encoding,
    open_bytes,
    read_lines,
    read_mark,
)
from retrieval.corpus.records import Fields, check_columns, check_distinct
from retrieval.corpus.roles import GUESSED_IDS, GUESSED_TEXTS, IDS, TEXTS
from retrieval.corpus.values import Cell, Reading, Row
from retrieval.errors import RecordError, count_noun
from retrieval.filters.schema import INT64, load_list, read_bounded_float
from retrieval.types import MetadataValue

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEPARATOR = re.compile(rf"sep=([{re.escape(''.join(DELIMITERS))}])\s*", re.IGNORECASE)
"""What Excel writes first, and heeds, where the delimiter is not that of the country."""
_SAMPLE_LINES = 50
_SAMPLE_BYTES = 1 << 20
_USUAL = {name.casefold() for name in (*IDS, *GUESSED_IDS, *TEXTS, *GUESSED_TEXTS)}
_NULLS = frozenset(["", "#N/A", "#NA", "N/A", "n/a", "NA", "NULL", "Null", "null", "NaN", "nan"])
_NULLS_AND_SIGNS = _NULLS | {"-NaN", "-nan", "None", "-"}
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_DIGIT = re.compile(r"[0-9]")
_INT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA_FLOAT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:,[0-9]+)?")
_INFINITIES = {
    sign + word: value
    for sign, value in (("", 1e999), ("+", 1e999), ("-", -1e999))
    for word in ("inf", "Inf", "INF", "infinity", "Infinity")
}


def document_rows(
    path: Path, source: str, reading: Reading, *, tabs: bool
) -> Iterator[Row | RecordError]:
    """Yield the records of a table, an empty cell as null, others with the type of their column.

    A column holds numbers, true and false, or lists in JSON where all of its cells do; the file
    is read once before to find out.

    Raises
    ------
    RecordError : the header cannot be read, or names two columns alike.
    """
    dialect = find_dialect(path, source, tabs=tabs, encoding=reading.encoding)
    if dialect.encoding not in ("utf-8", reading.encoding):
        reading.note(f"{source}: read as {dialect.encoding}. Another one: --encoding NAME")
    if not tabs and dialect.delimiter != ",":
        reading.note(f"{source}: its columns are separated by {DELIMITERS[dialect.delimiter]}.")
    if not dialect.header:
        reading.note(f"{source}: it has no header; the columns were taken for id and text.")
    kinds = _find_kinds(path, source, dialect, reading.types)
    untold = (TEXT, EMPTY)  # and ids, which stay as they are written
    typed = [
        f"{name} {kind}"
        for name, kind in kinds.items()
        if kind not in untold and name.casefold() not in IDS
    ]
    if typed:
        reading.note(f"{source}: types found in its columns: {', '.join(typed)}.")
    columns: list[str] = []
    for line, cells in split_cells(path, source, dialect):
        if isinstance(cells, RecordError):
            if not columns:
                raise cells  # without a header no later row can be read
            yield cells
        elif columns:
            yield _typed_row(source, line, columns, cells, kinds)
        else:
            columns = cells if dialect.header else ["id", "text"]
            check_distinct(source, line, columns)
            if not dialect.header:
                yield _typed_row(source, line, columns, cells, kinds)


def find_dialect(path: Path, source: str, *, tabs: bool, encoding: str = "") -> Dialect:
    """Return how a table is written, from its first lines and all of its bytes."""
    with open_bytes(path, source) as stream:
        head = stream.read(4)
    chosen = encoding or read_mark(head)
    if not chosen:
        with open_bytes(path, source) as stream:
            chosen = guess_encoding(iter(lambda: stream.readline(_SAMPLE_BYTES), b""))
    lines: list[str] = []
    with open_bytes(path, source, chosen) as stream:
        for line in read_lines(stream):
            lines.append(line.text)
            if len(lines) == _SAMPLE_LINES or sum(map(len, lines)) > _SAMPLE_BYTES:
                break
    named = None if tabs or not lines else _SEPARATOR.fullmatch(lines[0])
    skipped = 0 if named is None else 1
    delimiter = "\t" if tabs else named[1] if named else _find_delimiter(lines)
    rows = [row for row in _read_sample(lines[skipped:], delimiter, quotes=not tabs) if row]
    return Dialect(delimiter, not tabs, chosen, not _lacks_header(rows), skipped)


def _read_sample(lines: Sequence[str], delimiter: str, *, quotes: bool) -> list[list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    try:
        return list(csv.reader(lines, delimiter=delimiter, quoting=quoting))
    except csv.Error:
        return []


def _find_delimiter(lines: Sequence[str]) -> str:
    """Return what divides the header, and most rows into as many columns."""
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        rows = [row for row in _read_sample(lines, delimiter, quotes=True) if row]
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        fitting = sum(len(row) == width for row in rows[1:]) / max(1, len(rows) - 1)
        if (fitting, width) > best_score:
            best, best_score = delimiter, (fitting, width)
    return best


def _lacks_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is a record: two cells, the first an id like that of another row."""
    if not rows or len(rows[0]) != 2 or {cell.casefold() for cell in rows[0]} & _USUAL:
        return False
    first = _shape(rows[0][0])
    return "9" in first and (len(rows) == 1 or any(_shape(row[0]) == first for row in rows[1:]))


def _shape(text: str) -> str:
    """Return what an id looks like: digits as 9, letters as a."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"[0-9]+", "9", text))


def _typed_row(
    source: str, line: int, columns: list[str], cells: list[str], kinds: Mapping[str, str]
) -> Row | RecordError:
    row = table_row(source, line, columns, cells)
    if isinstance(row, RecordError):
        return row
    values = {
        name: cell if kinds[name] == TEXT and cell else Cell(cell, _convert(cell, kinds[name]))
        for name, cell in row.values.items()
    }
    return Row(source, line, values)


def table_row(source: str, line: int, columns: list[str], cells: list[str]) -> Row | RecordError:
    """Return the record of a table's row, or what is wrong with it."""
    if len(cells) != len(columns):
        found = count_noun(len(cells), "column")
        problem = f"the row has {found}; expected {len(columns)}, as in the header"
        return RecordError(source, line, problem)
    return Row(source, line, dict(zip(columns, cells, strict=True)))


TEXT, EMPTY, BOOL, INT, FLOAT, DECIMAL_COMMA, LIST = (
    "text", "empty", "bool", "int", "float", "float with a comma", "list"
)  # fmt: skip
_TESTS: dict[str, Callable[[str], bool]] = {
    BOOL: lambda cell: cell in _BOOLS,
    INT: lambda cell: bool(_INT.fullmatch(cell)) and INT64[0] <= int(cell) <= INT64[1],
    FLOAT: lambda cell: cell in _INFINITIES or (bool(_FLOAT.fullmatch(cell)) and _keeps(cell)),
    DECIMAL_COMMA: lambda cell: bool(_COMMA_FLOAT.fullmatch(cell)),
    LIST: lambda cell: cell[:1] == "[" and load_list(cell) is not None,
}
"""The types of columns, the narrower ones first, and which cells they can have."""


def _keeps(cell: str) -> bool:
    """Whether float64 holds a number without changing an identifier of many digits."""
    digits = cell.lstrip("+-")
    return not digits.isdigit() or int(digits) <= 2**53


@dataclass(slots=True)
class _Column:
    """What the cells of a column could be, as far as they were seen."""

    possible: list[str] = field(default_factory=lambda: list(_TESTS))
    filled: bool = False

    def add(self, cell: str) -> None:
        """Take note of a cell."""
        if not self.possible or cell in _NULLS_AND_SIGNS:
            self.filled = self.filled or cell != ""
            return
        self.filled = True
        self.possible = [kind for kind in self.possible if _TESTS[kind](cell)]


def _find_kinds(
    path: Path, source: str, dialect: Dialect, known: Mapping[str, str]
) -> dict[str, str]:
    """Return the type of every column; ``known`` are those that an index has.

    What is text there stays text.
    """
    names: list[str] = [] if dialect.header else ["id", "text"]
    columns = [_Column() for _ in names]
    for _, cells in split_cells(path, source, dialect):
        if isinstance(cells, RecordError):
            if not names:
                return {}  # the header is refused when it is read
            continue
        if not names:
            names, columns = cells, [_Column() for _ in cells]
        elif len(cells) == len(names):
            for column, cell in zip(columns, cells, strict=True):
                if column.possible:
                    column.add(cell)
                elif cell:
                    column.filled = True
    kinds = {}
    for name, column in zip(names, columns, strict=True):
        seen = column.possible if len(column.possible) < len(_TESTS) else []
        # Commas are decimal where they do not divide the columns.
        usable = [kind for kind in seen if kind != DECIMAL_COMMA or dialect.delimiter != ","]
        kinds[name] = usable[0] if usable else TEXT if column.filled else EMPTY
        if known.get(name) in ("string", "date"):
            kinds[name] = TEXT
        elif name in known and len(column.possible) == len(_TESTS):
            kinds[name] = EMPTY  # nothing but signs for null, which are none of the index's values
    return kinds


def _convert(cell: str, kind: str) -> MetadataValue:
    """Return a cell as its column's type has it; one that holds nothing is null."""
    if not cell or (kind != TEXT and cell in _NULLS_AND_SIGNS):
        return None
    if kind == BOOL:
        return _BOOLS[cell]
    if kind == INT:
        return int(cell)
    if kind in (FLOAT, DECIMAL_COMMA):
        number = _INFINITIES.get(cell)
        return read_bounded_float(float(cell.replace(",", ".")) if number is None else number)
    return load_list(cell) if kind == LIST else cell


def query_rows(path: Path, source: str, fields: Fields) -> Iterator[Row | RecordError]:
    """Yield the records of a tab-separated file; quotes are text, as in MS MARCO's files.

    A first row that does not name an id and a text column is itself a record of two columns, id
    and text.

    Raises
    ------
    RecordError : the first row is neither a header that is known nor like the others.
    """
    rows = table_cells(path, source, tabs=True)
    sample = list(islice(rows, _SAMPLE_LINES))
    if not sample:
        return
    line, first = sample[0]
    if isinstance(first, RecordError):
        raise first
    later = [cells[0] for _, cells in sample[1:] if not isinstance(cells, RecordError)]
    columns = _query_columns(source, line, first, later, fields)
    named = columns is not None
    for line, cells in chain(sample[1:] if named else sample, rows):
        if isinstance(cells, RecordError):
            yield cells
        else:
            yield table_row(source, line, columns or [fields.ids[0], fields.texts[0]], cells)


_QUERY_NAMES = (
    {"id", "queryid", "qid", "topicid", "topic", "number"},
    {"text", "query", "querytext", "question", "title"},
)
"""What the columns of queries are called in a header, as ``plain_name`` gives it."""


def _query_columns(
    source: str, line: int, cells: list[str], later: Sequence[str], fields: Fields
) -> list[str] | None:
    """Return the columns that the first row names, None if it is a query.

    Parameters
    ----------
    later : the first cells of some rows below it.
    """
    if set(fields.ids) & set(cells) and set(fields.texts) & set(cells):
        check_columns(source, line, cells, fields)
        return cells
    identifier, text = match_columns(cells, _QUERY_NAMES)
    if identifier is not None and text is not None:
        columns = list(cells)
        columns[identifier], columns[text] = fields.ids[0], fields.texts[0]
        check_distinct(source, line, columns)
        return columns
    unlike = bool(later) and not _DIGIT.search(cells[0]) and all(map(_DIGIT.search, later))
    if identifier == 0 or unlike:
        shown = ", ".join(repr(cell[:40]) for cell in cells)
        raise RecordError(
            source,
            line,
            f"the first line is {shown}: it looks like a header, and does not name an id and a "
            f"text. Call the columns query_id and text, or put a line that does so above it",
        )
    return None
