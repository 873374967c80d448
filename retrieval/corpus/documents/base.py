"""What readers of files are given and what they give back."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from retrieval.corpus.lines import (
    MAX_RECORD_BYTES,
    decode,
    decode_text,
    guess_encoding,
    is_utf8,
    name_foreign,
    read_mark,
)
from retrieval.corpus.values import Reading
from retrieval.types import Section

MAX_FILE_BYTES = 256 << 20
"""The largest PDF, DOCX or EPUB that is read; of text and HTML it is ``MAX_RECORD_BYTES``."""
MAX_UNPACKED_BYTES = 512 << 20
"""What the parts of a .docx, .epub or .xlsx may be together, unpacked."""
MAX_PARTS = 20_000


class UnreadableError(Exception):
    """A file cannot be read; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of a file that cannot be read, such as a page."""

    text: str


@dataclass(frozen=True, slots=True)
class FileText:
    """A document of a file.

    Attributes
    ----------
    text, title : may be empty.
    sections : where headings and pages begin.
    metadata : what the file says of itself.
    part : tells several documents of one file apart; "" if the file is one document.
    """

    text: str
    title: str = ""
    sections: Sequence[Section] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""


class Opened:
    """A file that is being read.

    Parameters
    ----------
    name : as messages show it.
    left_out : counts what is not read of files, by what one and several are called with their
        verb, as for ``count_noun``.
    """

    def __init__(
        self, path: Path, name: str, reading: Reading, left_out: Counter[tuple[str, str]]
    ) -> None:
        self.path, self.name, self.left_out = path, name, left_out
        self._reading = reading

    @cached_property
    def data(self) -> bytes:
        """All bytes.

        Raises
        ------
        UnreadableError : they are more than ``MAX_FILE_BYTES``, or change while they are read.
        """
        return self.read(MAX_FILE_BYTES)

    def read(self, limit: int) -> bytes:
        """Return all bytes; raise UnreadableError for more than ``limit``, or for a change."""
        with self.path.open("rb") as stream:
            before = os.fstat(stream.fileno())
            data = stream.read(limit + 1)
            after = os.fstat(stream.fileno())
        if len(data) > limit:
            raise UnreadableError(f"longer than {limit >> 20} MiB, which is the limit")
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UnreadableError("it changed while it was read; read it again")
        return data

    def text(self, declared: Callable[[bytes], str] = lambda _: "") -> str:
        """Return the file as text.

        Parameters
        ----------
        declared : finds an encoding that the file states; "" if it states none.

        Raises
        ------
        UnreadableError : it is too long, holds NUL, or is in no encoding that can be told.
        """
        data = self.read(MAX_RECORD_BYTES)
        if foreign := name_foreign(data):
            raise UnreadableError(foreign)
        asked = self._reading.encoding
        encoding = asked or read_mark(data[:4]) or declared(data[:4096])
        if not encoding:
            encoding = guess_encoding(data.splitlines())
            if encoding != "utf-8":
                self.note(f"{self.name}: read as {encoding}. Another one: --encoding NAME")
        if is_utf8(encoding):
            text, problem = decode(data, first=True)
        else:
            text, problem = decode_text(data, encoding)
        if problem:
            raise UnreadableError(problem)
        return text

    def note(self, line: str) -> None:
        """Tell the user a line."""
        self._reading.note(line)


FileReader: TypeAlias = Callable[[Opened], Iterator[FileText | Problem]]
"""Yields the documents of a file, and what of it cannot be read.

May raise UnreadableError, and whatever its library raises for a damaged file.
"""


@dataclass
class TextBuilder:
    """Puts a text together from blocks, an empty line between them, and keeps its headings."""

    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    _headings: list[tuple[int, int, str]] = field(default_factory=list)
    _pages: list[tuple[int, int]] = field(default_factory=list)

    def block(self, text: str) -> int:
        """Add a block; return where it begins."""
        text = text.strip("\n").rstrip()
        start = self._length
        if text:
            self._parts.append(text + "\n\n")
            self._length += len(text) + 2
        return start

    def heading(self, level: int, title: str, *, start: int | None = None) -> None:
        """Add a heading as a block, or name the text from ``start`` on."""
        title = " ".join(title.split())
        if title:
            place = self.block(title) if start is None else start
            self._headings.append((place, level, title))

    def page(self, number: int) -> None:
        """Say that a page begins here."""
        self._pages.append((self._length, number))

    def finish(
        self, title: str = "", metadata: Mapping[str, Any] | None = None, part: str = ""
    ) -> FileText:
        """Return the text; without a title it has that of its first heading."""
        first = self._headings[0][2] if self._headings else ""
        text = "".join(self._parts).rstrip()
        sections = outline(self._headings, self._pages)
        return FileText(text, title or first, sections, metadata or {}, part)


def outline(
    headings: Sequence[tuple[int, int, str]], pages: Sequence[tuple[int, int]] = ()
) -> tuple[Section, ...]:
    """Return the sections of a text, from start, level and title of its headings.

    Pages are given by start and number.

    A heading of a level ends those of the same and of deeper levels.
    """
    events = sorted(
        [(start, 0, page, "") for start, page in pages] + [(*h[:1], 1, *h[1:]) for h in headings]
    )
    path: list[tuple[int, str]] = []
    page: int | None = None
    sections: list[Section] = []
    for start, is_heading, number, title in events:
        if is_heading:
            path = [*((level, name) for level, name in path if level < number), (number, title)]
        else:
            page = number
        section = Section(start, " > ".join(name for _, name in path if name), page)
        if sections and sections[-1].start == start:
            sections[-1] = section
        else:
            sections.append(section)
    return tuple(sections)


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def open_zip(data: bytes) -> zipfile.ZipFile:
    """Return an archive whose parts may be unpacked.

    Raises
    ------
    UnreadableError : it is none, is encrypted, or would unpack to more than the limit.
    """
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise UnreadableError("it is encrypted, or of an Office before 2007; save it again without")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise UnreadableError(f"it is damaged ({error}); copy or save it again") from None
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if size > MAX_UNPACKED_BYTES or len(entries) > MAX_PARTS:
        raise UnreadableError(
            f"it unpacks to {size >> 20:,} MiB in {len(entries):,} parts; the limit is "
            f"{MAX_UNPACKED_BYTES >> 20} MiB in {MAX_PARTS:,}"
        )
    return archive
