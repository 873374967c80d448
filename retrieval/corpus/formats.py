"""Rows of JSON Lines and Parquet files, and the lines and bytes of text files."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from retrieval.corpus.encodings import UNDECODED, Transcoded, is_utf8, read_mark
from retrieval.corpus.records import Fields, check_columns, check_distinct
from retrieval.corpus.values import Row, type_name
from retrieval.errors import FailureError, RecordError, StorageError

__all__ = [
    "MAX_RECORD_BYTES",
    "Line",
    "decode",
    "Dialect",
    "find_mark",
    "jsonl_rows",
    "open_bytes",
    "read_lines",
    "count_parquet",
    "split_cells",
    "table_cells",
    "parquet_rows",
]

MAX_RECORD_BYTES = 64 << 20
"""The longest line or text file that is read; bounds memory where line ends are missing."""


_UNDECODED = UNDECODED.encode(errors="surrogatepass")


class Line(NamedTuple):
    """One line; ``text`` is only fit for use where ``problem`` is empty."""

    number: int
    text: str
    problem: str


@contextmanager
def open_bytes(path: Path | None, source: str, encoding: str = "") -> Iterator[IO[bytes]]:
    """Open a file, or stdin where ``path`` is None; names ending in .gz are decompressed.

    A text that is not in UTF-8 is read as UTF-8 where ``encoding`` names what it is in.

    Raises
    ------
    StorageError : the file cannot be opened or read.
    FailureError : the gzip data is damaged or ends early.
    """
    try:
        if path is None:
            yield _recode(sys.stdin.buffer, encoding)
        elif path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                yield _recode(cast(IO[bytes], stream), encoding)
        else:
            with path.open("rb") as raw:
                yield _recode(raw, encoding)
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


def _recode(stream: IO[bytes], encoding: str) -> IO[bytes]:
    if is_utf8(encoding):
        return stream
    return io.BufferedReader(Transcoded(stream, encoding))


def find_mark(path: Path | None, source: str) -> str:
    """Return the encoding that the first bytes of a file name, "" where they name none."""
    if path is None:
        return ""
    with open_bytes(path, source) as stream:
        return read_mark(stream.read(4))


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
        if body.startswith(_UNDECODED, error.start):
            problem = (
                f"bytes that its encoding does not have {_place(body, error.start, offset)}; name "
                f"the right one: --encoding NAME"
            )
            return body.decode(errors="replace"), problem
        problem = (
            f"not UTF-8: byte 0x{body[error.start]:02x} {_place(body, error.start, offset)}; "
            f"expected UTF-8, or name what it is: --encoding NAME"
        )
    return body.decode(errors="replace"), problem


def _place(body: bytes, position: int, offset: int) -> str:
    """Name a byte by its number, and by its line where the body has several."""
    line_start = body.rfind(b"\n", 0, position) + 1
    if line_start == 0:
        return f"at byte {position + offset + 1} of the line"
    line = body.count(b"\n", 0, position) + 1
    return f"at byte {position - line_start + 1} of line {line}"


def jsonl_rows(path: Path | None, source: str, encoding: str = "") -> Iterator[Row | RecordError]:
    """Yield a Row for each JSON object, or the RecordError of a line that is not one.

    NaN and Infinity, which Python writes, are read as numbers.
    """
    with open_bytes(path, source, encoding or find_mark(path, source)) as stream:
        for number, text, problem in read_lines(stream):
            if problem:
                yield RecordError(source, number, problem)
            elif not text.isspace() and text:
                yield _parse(source, number, text)


def _parse(source: str, number: int, text: str) -> Row | RecordError:
    try:
        # Without its line end: the decoder would count an error behind it as column 1.
        value: Any = json.loads(text.rstrip("\r\n"))
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


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written.

    Attributes
    ----------
    quotes : whether cells may stand in quotes, as in RFC 4180; else a quote is text.
    header : whether the first row names the columns; else they are id and text.
    """

    delimiter: str
    quotes: bool
    encoding: str = "utf-8"
    header: bool = True


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
    done, unclosed = 0, True
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
