"""The encoding of a text file: UTF-8, UTF-16 with its mark, or one that its letters betray."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable
from typing import IO

__all__ = [
    "MARKS",
    "UNDECODED",
    "Transcoded",
    "check_encoding",
    "decode_text",
    "guess_encoding",
    "is_utf8",
    "read_mark",
]

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
    from retrieval.errors import UsageError

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
