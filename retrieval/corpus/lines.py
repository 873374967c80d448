"""Bytes to lines to JSON records, with the line and byte of whatever is wrong."""

from __future__ import annotations

import codecs
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

from retrieval.corpus.records import Row, type_name
from retrieval.errors import FailureError, RecordError, StorageError

__all__ = ["MAX_RECORD_BYTES", "Line", "decode", "jsonl_rows", "open_bytes", "read_lines"]

MAX_RECORD_BYTES = 64 << 20
"""The longest line or text file that is read; what bounds memory where line ends are missing."""


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
    """Return text and "", or text with replaced bytes and what is wrong.

    ``first`` says that the data starts a file, where a byte order mark is dropped.
    """
    offset = 3 if first and data.startswith(codecs.BOM_UTF8) else 0
    body = data[offset:] if offset else data
    nul = body.find(b"\0")
    problem = ""
    if nul >= 0:
        problem = f"a NUL byte {_place(body, nul, offset)}; accepted is text without NUL"
    try:
        return body.decode(), problem
    except UnicodeDecodeError as error:
        problem = (
            f"not UTF-8: byte 0x{body[error.start]:02x} {_place(body, error.start, offset)}; "
            f"accepted is UTF-8 (iconv -t UTF-8 converts)"
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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(source: str, number: int, text: str) -> Row | RecordError:
    try:
        # Without its line end: the decoder would count an error behind it as column 1.
        value: Any = _DECODER.decode(text.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        reason = f"at column {error.colno} ({error.msg})"
    except (ValueError, RecursionError) as error:
        reason = f"({error})"
    else:
        if isinstance(value, dict):
            return Row(source, number, value)
        return RecordError(
            source, number, f"the line is {type_name(value)}; accepted is one JSON object a line"
        )
    return RecordError(
        source, number, f"not valid JSON {reason}; accepted is one JSON object a line"
    )
