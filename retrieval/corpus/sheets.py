"""Excel and OpenDocument sheets as records."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval.corpus.documents.base import MAX_FILE_BYTES, UnreadableError, open_zip
from retrieval.corpus.documents.registry import EXTRA
from retrieval.corpus.formats import open_bytes
from retrieval.corpus.records import check_distinct
from retrieval.corpus.values import Cell, Reading, Row
from retrieval.errors import RecordError, import_optional

__all__ = ["sheet_rows"]


def sheet_rows(path: Path, source: str, reading: Reading) -> Iterator[Row | RecordError]:
    """Yield the rows below the header of a file's first sheet, an empty cell as null.

    A file that is damaged, encrypted or too large is one bad record.

    Raises
    ------
    RecordError : two columns have the same name.
    MissingDependencyError : python-calamine is not installed.
    """
    purpose = f"{source}: reading a sheet"
    python_calamine = import_optional("python_calamine", purpose, EXTRA, "python-calamine")
    with open_bytes(path, source) as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    try:
        if len(data) > MAX_FILE_BYTES:
            raise UnreadableError(f"longer than {MAX_FILE_BYTES >> 20} MiB, which is the limit")
        if path.suffix.lower() != ".xls":  # which is no archive
            open_zip(data).close()
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        rows = book.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except UnreadableError as error:
        yield RecordError(source, None, str(error))
        return
    except python_calamine.CalamineError as error:
        yield RecordError(source, None, f"cannot be read as a sheet ({error})")
        return
    if len(book.sheet_names) > 1:
        others = ", ".join(map(repr, book.sheet_names[1:4]))
        more = " and others" if len(book.sheet_names) > 4 else ""
        reading.note(f"{source}: only its first sheet is read, not {others}{more}.")
    columns: list[str] = []
    for line, cells in enumerate(rows, start=1):
        if all(cell == "" for cell in cells):
            continue
        if columns:
            named = {name: _value(cell) for name, cell in zip(columns, cells, strict=False) if name}
            yield Row(source, line, named)
        else:
            columns = [str(_value(cell) or "") for cell in cells]
            check_distinct(source, line, [name for name in columns if name])


def _value(cell: Any) -> Any:
    """Return a cell as text that knows its value; whole numbers, which are floats there, as int."""
    if cell == "":
        return None
    if isinstance(cell, str):
        return cell
    value = int(cell) if isinstance(cell, float) and cell.is_integer() else cell
    if isinstance(value, datetime.date | datetime.time):
        value = value.isoformat()
    elif isinstance(value, datetime.timedelta):
        value = str(value)
    return Cell(str(value), value)
