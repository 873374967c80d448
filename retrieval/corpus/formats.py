"""Tables: the cells of CSV and TSV files, the rows of Parquet files and of sheets."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from retrieval.corpus.documents.base import MAX_FILE_BYTES, UnreadableError, open_zip
from retrieval.corpus.documents.registry import EXTRA
from retrieval.corpus.lines import MAX_RECORD_BYTES, Line, open_bytes, read_lines
from retrieval.corpus.records import Fields, check_columns, check_distinct
from retrieval.corpus.values import Cell, Reading, Row
from retrieval.errors import FailureError, RecordError, import_optional

_PARQUET_BATCH = 64


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written.

    Attributes
    ----------
    quotes : whether cells may stand in quotes, as in RFC 4180; else a quote is text.
    header : whether the first row names the columns; else they are id and text.
    skipped : lines before the first row, such as Excel's "sep=;".
    """

    delimiter: str
    quotes: bool
    encoding: str = "utf-8"
    header: bool = True
    skipped: int = 0


class _LineFeed:
    """Hands lines to csv.reader and remembers the first bad line of the record."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._bad: Line | None = None
        self.count = 0

    def __iter__(self) -> _LineFeed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        if line.problem and self._bad is None:
            self._bad = line
        return line.text

    def take_bad(self) -> Line | None:
        """Return the bad line seen since the last call, if any."""
        bad, self._bad = self._bad, None
        return bad


def split_cells(
    path: Path, source: str, dialect: Dialect
) -> Iterator[tuple[int, list[str] | RecordError]]:
    """Yield each row's first line and its cells as text, or the error that stands in its place."""
    # The limit belongs to the whole process, so it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if dialect.quotes else csv.QUOTE_NONE
    done, unclosed = dialect.skipped, True
    while unclosed:
        unclosed = False
        with open_bytes(path, source, dialect.encoding) as stream:
            feed = _LineFeed(islice(read_lines(stream), done, None))
            reader = csv.reader(feed, delimiter=dialect.delimiter, quoting=quoting, strict=True)
            for line, cells in _split(feed, reader, source, done):
                if isinstance(cells, RecordError) and cells.problem == _UNCLOSED:
                    unclosed, done = True, line
                yield line, cells


_UNCLOSED = "not valid CSV (a quote that opens in this record is never closed)"
"""It takes the rest of the file with it, so that reading goes on with the next line."""


def _split(
    feed: _LineFeed, reader: Iterator[list[str]], source: str, done: int
) -> Iterator[tuple[int, list[str] | RecordError]]:
    """Yield each row's first line and its cells or error; ``done`` lines come before."""
    while True:
        line = done + feed.count + 1
        cells: list[str] | RecordError
        ended = False
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            ended = str(error) == "unexpected end of data"
            cells = RecordError(source, line, _UNCLOSED if ended else f"not valid CSV ({error})")
        bad = feed.take_bad()
        if bad is not None and not ended:
            cells = RecordError(source, bad.number, bad.problem)
        if cells:
            yield line, cells


def table_cells(
    path: Path, source: str, *, tabs: bool
) -> Iterator[tuple[int, list[str] | RecordError]]:
    """Yield each row's first line and its cells, separated by commas or by ``tabs``, as text."""
    return split_cells(path, source, Dialect("\t" if tabs else ",", quotes=not tabs))


@contextmanager
def _open_parquet(path: Path, source: str) -> Iterator[Any]:
    """Open a Parquet file; raise FailureError for whatever Arrow finds wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_bytes(path, source, as_text=False) as stream:
        try:
            # A buffer of its own makes Arrow stream each column chunk instead of loading it.
            with pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 18) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FailureError(
                f"{source}: cannot be read as Parquet ({reason}). Download or write the file again."
            ) from error


def count_parquet(path: Path, source: str) -> int:
    """Return the number of rows that the file's footer states."""
    with _open_parquet(path, source) as file:
        return int(file.metadata.num_rows)


def parquet_rows(
    path: Path, source: str, fields: Fields | None = None
) -> Iterator[Row | RecordError]:
    """Yield the records of a Parquet file; ``line`` is the 1-based row.

    Raises
    ------
    RecordError : two columns have the same name, or none is an id or a text of ``fields``.
    """
    with _open_parquet(path, source) as file:
        names = file.schema_arrow.names
        check_distinct(source, None, names)
        if fields is not None:
            check_columns(source, None, names, fields)
        first = 1
        for found in file.iter_batches(batch_size=_PARQUET_BATCH, use_threads=False):
            batch = _to_microseconds(found)
            try:
                values = batch.to_pylist()
            except (ValueError, OverflowError):
                yield from _rows_singly(batch, source, first)
            else:
                for number, value in enumerate(values, first):
                    yield Row(source, number, value)
            first += batch.num_rows


def _to_microseconds(batch: Any) -> Any:
    """Return a batch without nanoseconds, which Python's times do not have."""
    import pyarrow as pa

    finer: dict[Callable[[Any], bool], Callable[[Any], Any]] = {
        pa.types.is_timestamp: lambda kind: pa.timestamp("us", kind.tz),
        pa.types.is_time64: lambda kind: pa.time64("us"),
        pa.types.is_duration: lambda kind: pa.duration("us"),
    }
    for place, field in enumerate(batch.schema):
        for fits, coarser in finer.items():
            if fits(field.type) and field.type.unit == "ns":
                column = batch.column(place).cast(coarser(field.type), safe=False)
                batch = batch.set_column(place, field.name, column)
    return batch


def _rows_singly(batch: Any, source: str, first: int) -> Iterator[Row | RecordError]:
    """Yield a batch row by row, to find the rows that Python cannot hold."""
    for position in range(batch.num_rows):
        try:
            value = batch.slice(position, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield RecordError(
                source,
                first + position,
                f"not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start + 1} of "
                f"the value; expected UTF-8",
            )
        except (ValueError, OverflowError) as error:
            yield RecordError(source, first + position, f"a value cannot be read ({error})")
        else:
            yield Row(source, first + position, value)


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
    with open_bytes(path, source, as_text=False) as stream:
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
