"""The lines of text files in any encoding, and the JSON objects on them."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from retrieval.corpus.values import Row, type_name
from retrieval.errors import FailureError, RecordError, StorageError, UsageError

MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
WINDOWS = "windows-1252"
_EVIDENCE_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 18
_SURE_BYTES = 12
"""With fewer bytes beyond ASCII, a guess between alphabets is no better than chance."""
_SURE_CHAOS = 0.2
_SIGNS = bytes([0x80, *range(0x82, 0x8A), *range(0x91, 0x9A), *range(0xA0, 0xC0), 0xD7])
_TYPOGRAPHIC = frozenset(_SIGNS.decode(WINDOWS))
"""Quotes, dashes, currencies and signs."""

UNDECODED = "\udcff"
"""What stands for bytes that an encoding does not have; UTF-8 has no form for it."""
_MARKED = "millpond-mark"
codecs.register_error(_MARKED, lambda error: (UNDECODED, error.end))  # type: ignore[attr-defined]
_UNDECODED = UNDECODED.encode(errors="surrogatepass")

MAX_RECORD_BYTES = 64 << 20
"""The longest line or text file that is read; bounds memory where line ends are missing."""


_FOREIGN = {
    b"\x1f\x8b\x08": "gzip data; unpack it, or of .jsonl, .csv and .tsv let the name end in .gz",
    b"\x28\xb5\x2f\xfd": "Zstandard data; unpack it",
    b"BZh91AY&SY": "bzip2 data; unpack it",
    b"\xfd7zXZ\0": "xz data; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it, or if it is .xlsx, .docx or the like, name it so",
    b"%PDF-": "a PDF; let its name end in .pdf",
    b"PAR1\x15": "Parquet; let its name end in .parquet",
    b"SQLite format 3\0": "a database of SQLite; read it with --sql",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a file of an Office before 2007; save it as a newer one",
    b"\x89PNG\r\n": "a picture, not a text",
    b"\xff\xd8\xff": "a picture, not a text",
    b"\x7fELF": "a program, not a text",
}
HEAD_BYTES = 16


def name_foreign(head: bytes) -> str:
    """Return what a file that should be text is instead by its first bytes, "" for a text."""
    found = next((kind for start, kind in _FOREIGN.items() if head.startswith(start)), "")
    return found and f"its content is {found}"


class Line(NamedTuple):
    """One line; ``text`` is only fit for use where ``problem`` is empty."""

    number: int
    text: str
    problem: str


@contextmanager
def open_bytes(
    path: Path | None, source: str, encoding: str = "", *, as_text: bool = True
) -> Iterator[IO[bytes]]:
    """Open a file, or stdin where ``path`` is None; names ending in .gz are decompressed.

    A text that is not in UTF-8 is read as UTF-8 where ``encoding`` names what it is in.

    Raises
    ------
    StorageError : the file cannot be opened or read.
    RecordError : ``as_text``, and it holds something else.
    FailureError : the gzip data is damaged or ends early.
    """
    try:
        if path is None:
            yield _recode(sys.stdin.buffer, encoding)
        elif path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                _refuse_foreign(stream.peek(HEAD_BYTES), source)  # packed twice, perhaps
                yield _recode(cast(IO[bytes], stream), encoding)
        else:
            with path.open("rb") as raw:
                if as_text:
                    _refuse_foreign(raw.peek(HEAD_BYTES), source)
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


def _refuse_foreign(head: bytes, source: str) -> None:
    if problem := name_foreign(head):
        raise RecordError(source, None, problem)


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


def is_utf8(encoding: str) -> bool:
    """Whether an encoding is UTF-8, with or without a mark, or none is named."""
    return encoding.lower().replace("_", "-") in ("", "utf-8", "utf8", "utf-8-sig")


def decode_text(data: bytes, encoding: str) -> tuple[str, str]:
    """Return a text, and what is wrong with it or ""."""
    text = data.decode(encoding, errors=_MARKED).removeprefix("\ufeff")
    for sign, problem in ((UNDECODED, f"bytes that {encoding} does not have"), ("\0", "a NUL")):
        place = text.find(sign)
        if place >= 0:
            line = text.count("\n", 0, place) + 1
            return text, f"{problem} on line {line}; name the right encoding: --encoding NAME"
    return text, ""


def check_encoding(name: str) -> str:
    """Return the name of an encoding.

    Raises
    ------
    UsageError : Python knows none of this name.
    """
    try:
        # Some names of codecs are no encodings of text: base64, rot13, idna, a name with a NUL.
        "a\n".encode(name).decode(name, "replace")
    except (LookupError, ValueError):
        raise UsageError(
            f"{name!r} is no known encoding; expected a name such as utf-8, utf-16 or {WINDOWS}."
        ) from None
    return name


def read_mark(head: bytes) -> str:
    """Return the encoding that a file's first bytes name, "" where they name none."""
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "")


def guess_encoding(lines: Iterable[bytes]) -> str:
    """Return the encoding of lines without a mark; "utf-8" also where it is merely damaged.

    Lines in UTF-8, or a NUL byte, show that other bytes are damage. Where every line beyond ASCII
    is no UTF-8, the letters decide, by charset-normalizer; a handful of letters inside words is
    taken for Windows-1252.
    """
    evidence: list[bytes] = []
    size = 0
    for line in lines:
        if b"\0" in line:
            return "utf-8"
        if line.isascii():
            continue
        try:
            line.decode()
            return "utf-8"
        except UnicodeDecodeError:
            evidence.append(line)
        size += len(line)
        if size > _EVIDENCE_BYTES:
            break
    return _judge(b"".join(evidence)[: 2 * _EVIDENCE_BYTES]) if evidence else "utf-8"


def _judge(data: bytes) -> str:
    high = sum(byte >= 0x80 for byte in data)
    western = _is_western(data)
    if high >= _SURE_BYTES or not western:
        from charset_normalizer import from_bytes

        best = from_bytes(data).best()
        if best is not None and high >= _SURE_BYTES and best.chaos < _SURE_CHAOS:
            latin = not any(letter >= "\u0370" for letter in str(best) if letter.isalpha())
            return WINDOWS if western and latin else str(best.encoding)
    return WINDOWS if western else "utf-8"


def _is_western(data: bytes) -> bool:
    """Whether all bytes beyond ASCII are, in Windows-1252, letters of words or usual signs."""
    try:
        text = data.decode(WINDOWS)
    except UnicodeDecodeError:
        return False
    for place, letter in enumerate(text):
        if letter.isascii() or letter in _TYPOGRAPHIC:
            continue
        around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
        if not (letter.isalpha() and any(near.isalpha() for near in around)):
            return False
    return True


class Transcoded(io.RawIOBase):
    """A stream of bytes in some encoding, read as UTF-8.

    Bytes that do not decode are ``UNDECODED``.
    """

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=_MARKED)
        self._ready = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with UTF-8; return the number of bytes, 0 at the end."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._ready:
            block = self._stream.read(_BLOCK_BYTES)
            self._ready = self._decoder.decode(block, final=not block).encode(
                errors="surrogatepass"
            )
            if not block:
                break
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
