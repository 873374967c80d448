"""Rows of JSON Lines, CSV, TSV and Parquet files, and the lines and bytes below them."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from retrieval.corpus.records import Fields, Row, check_columns, type_name
from retrieval.errors import FailureError, RecordError, StorageError
from retrieval.filters.schema import STRICT_JSON, read_bounded_float

__all__ = [
    "MAX_RECORD_BYTES",
    "Line",
    "decode",
    "jsonl_rows",
    "open_bytes",
    "read_lines",
    "count_parquet",
    "csv_rows",
    "parquet_rows",
    "table_cells",
    "tsv_rows",
]

MAX_RECORD_BYTES = 64 << 20
"""The longest line or text file that is read; bounds memory where line ends are missing."""


class Line(NamedTuple):
    """One line; ``text`` is only fit for use where ``problem`` is empty."""

    number: int
    text: str
    problem: str


@contextmanager
def open_bytes(path: Path | None, source: str) -> Iterator[IO[bytes]]:
    """Open a file, or stdin where ``path`` is None; names ending in .gz are decompressed.

    Raises
    ------
    StorageError : the file cannot be opened or read.
    FailureError : the gzip data is damaged or ends early.
    """
    try:
        if path is None:
            yield sys.stdin.buffer
        elif path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                yield cast(IO[bytes], stream)
        else:
            with path.open("rb") as raw:
                yield raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FailureError(
            f"{source}: the gzip data is damaged or cut off ({error}). Download or copy the file "
            f"again, or check it with: gzip -t {source}"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{source}: cannot be read ({error.strerror or error}). Check that you may read it: "
            f"ls -l {source}"
        ) from error


def read_lines(stream: IO[bytes]) -> Iterator[Line]:
    """Yield every line with its line end; bytes that are not UTF-8 are marked, not raised."""
    number = 0
    while data := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(data) > MAX_RECORD_BYTES:
            while data and not data.endswith(b"\n"):
                data = stream.readline(1 << 20)
            limit = MAX_RECORD_BYTES >> 20
            yield Line(number, "\n", f"the line is longer than {limit} MiB, which is the limit")
            continue
        text, problem = decode(data, first=number == 1)
        yield Line(number, text, problem)


def decode(data: bytes, *, first: bool) -> tuple[str, str]:
    """Return the text and "", or the text with bytes replaced and what is wrong with it.

    ``first`` says that the data begins a file; a byte order mark there is dropped.
    """
    offset = 3 if first and data.startswith(codecs.BOM_UTF8) else 0
    body = data[offset:] if offset else data
    nul = body.find(b"\0")
    problem = ""
    if nul >= 0:
        problem = f"a NUL byte {_place(body, nul, offset)}; expected text without NUL"
    try:
        return body.decode(), problem
    except UnicodeDecodeError as error:
        problem = (
            f"not UTF-8: byte 0x{body[error.start]:02x} {_place(body, error.start, offset)}; "
            f"expected UTF-8 (iconv -t UTF-8 converts)"
        )
    return body.decode(errors="replace"), problem


def _place(body: bytes, position: int, offset: int) -> str:
    """Name a byte by its number, and by its line where the body has several."""
    line_start = body.rfind(b"\n", 0, position) + 1
    if line_start == 0:
        return f"at byte {position + offset + 1} of the line"
    line = body.count(b"\n", 0, position) + 1
    return f"at byte {position - line_start + 1} of line {line}"


def jsonl_rows(path: Path | None, source: str) -> Iterator[Row | RecordError]:
    """Yield a Row for each JSON object, or the RecordError of a line that is not one."""
    with open_bytes(path, source) as stream:
        for number, text, problem in read_lines(stream):
            if problem:
                yield RecordError(source, number, problem)
            elif not text.isspace() and text:
                yield _parse(source, number, text)


def _parse(source: str, number: int, text: str) -> Row | RecordError:
    try:
        # Without its line end: the decoder would count an error behind it as column 1.
        value: Any = STRICT_JSON.decode(text.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        reason = f"at column {error.colno} ({error.msg})"
    except (ValueError, RecursionError) as error:
        reason = f"({error})"
    else:
        if isinstance(value, dict):
            return Row(source, number, value)
        return RecordError(
            source, number, f"the line is {type_name(value)}; expected one JSON object per line"
        )
    return RecordError(
        source, number, f"not valid JSON {reason}; expected one JSON object per line"
    )


_PARQUET_BATCH = 64


def csv_rows(path: Path, source: str, fields: Fields) -> Iterator[Row | RecordError]:
    """Yield the records of a comma-separated file with quotes as in RFC 4180."""
    yield from _table_rows(path, source, fields, tabs=False, header_required=True)


def tsv_rows(
    path: Path, source: str, fields: Fields, *, header_required: bool = True
) -> Iterator[Row | RecordError]:
    """Yield the records of a tab-separated file; quotes are text, as in MS MARCO's files.

    If no header is required, a first row that does not name an id and a text column is itself
    a record of two columns, id and text.
    """
    yield from _table_rows(path, source, fields, tabs=True, header_required=header_required)


class _LineFeed:
    """Hands lines to csv.reader and remembers the first bad line of the record."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._bad: Line | None = None

    def __iter__(self) -> _LineFeed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if line.problem and self._bad is None:
            self._bad = line
        return line.text

    def take_bad(self) -> Line | None:
        """Return the bad line seen since the last call, if any."""
        bad, self._bad = self._bad, None
        return bad


def _table_rows(
    path: Path, source: str, fields: Fields, *, tabs: bool, header_required: bool
) -> Iterator[Row | RecordError]:
    columns: list[str] = []
    for line, cells in table_cells(path, source, tabs=tabs):
        if isinstance(cells, RecordError):
            if not columns:
                raise cells  # without a header no later row can be read
            yield cells
        elif columns:
            yield _row(source, line, columns, cells)
        elif header_required or (set(fields.ids) & set(cells) and set(fields.texts) & set(cells)):
            check_columns(source, line, cells, fields)
            columns = cells
        else:
            columns = [fields.ids[0], fields.texts[0]]
            yield _row(source, line, columns, cells)


def _row(source: str, line: int, columns: list[str], cells: list[str]) -> Row | RecordError:
    if len(cells) == len(columns):
        return Row(source, line, dict(zip(columns, cells, strict=True)))
    return RecordError(
        source,
        line,
        f"the row has {len(cells)} {'column' if len(cells) == 1 else 'columns'}; "
        f"expected {len(columns)}, as in the header",
    )


def table_cells(
    path: Path, source: str, *, tabs: bool
) -> Iterator[tuple[int, list[str] | RecordError]]:
    """Yield each row's first line and its cells as text, or the error that stands in its place."""
    # The limit belongs to the whole process, so it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    with open_bytes(path, source) as stream:
        feed = _LineFeed(read_lines(stream))
        if tabs:
            reader = csv.reader(feed, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            reader = csv.reader(feed, strict=True)
        while True:
            line = reader.line_num + 1
            cells: list[str] | RecordError
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                kind = "TSV" if tabs else "CSV"
                cells = RecordError(source, line, f"not valid {kind} ({error})")
            bad = feed.take_bad()
            if bad is not None:
                cells = RecordError(source, bad.number, bad.problem)
            if cells:
                yield line, cells


@contextmanager
def _open_parquet(path: Path, source: str) -> Iterator[Any]:
    """Open a Parquet file; raise FailureError for whatever Arrow finds wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_bytes(path, source) as stream:
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


def parquet_rows(path: Path, source: str, fields: Fields) -> Iterator[Row | RecordError]:
    """Yield the records of a Parquet file; ``line`` is the 1-based row.

    NaN is null, and an infinite number is the largest finite one.
    """
    with _open_parquet(path, source) as file:
        check_columns(source, None, file.schema_arrow.names, fields)
        first = 1
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH, use_threads=False):
            try:
                values = batch.to_pylist()
            except (ValueError, OverflowError):
                yield from _rows_singly(batch, source, first)
            else:
                for number, value in enumerate(values, first):
                    yield Row(source, number, _finite(value))
            first += batch.num_rows


def _finite(value: Any) -> Any:
    """Return a value without NaN and infinity, which JSON and filters do not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else read_bounded_float(value)
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value


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
            yield Row(source, first + position, _finite(value))
