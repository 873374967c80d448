"""Documents from a folder of text files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from retrieval.corpus.lines import MAX_RECORD_BYTES, decode, open_bytes
from retrieval.corpus.records import Row
from retrieval.errors import RecordError, StorageError

__all__ = ["TEXT_SUFFIXES", "find_title", "list_text_files", "text_rows"]

TEXT_SUFFIXES = (".txt", ".md", ".rst")

_TITLE_CHARACTERS = 1 << 16
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*?)(?:[ \t]+#+)?[ \t]*")
_SETEXT = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*")


def list_text_files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the text files under a folder as relative paths with forward slashes, sorted.

    Names beginning with a dot are left out, and links to folders are not followed.

    Raises
    ------
    StorageError : a folder cannot be listed.
    """
    here = folder / prefix
    try:
        with os.scandir(here) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            # The slash makes folder by folder the same order as sorting the whole paths.
            found = sorted(
                entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "")
                for entry in visible
                if entry.is_dir(follow_symlinks=False) or entry.is_file()
            )
    except OSError as error:
        raise StorageError(
            f"{here}: the folder cannot be listed ({error.strerror}). Check that you may read "
            f"it: ls -ld {here}"
        ) from error
    for name in found:
        if name.endswith("/"):
            yield from list_text_files(folder, prefix + name)
        elif name.lower().endswith(TEXT_SUFFIXES):
            yield prefix + name


def text_rows(folder: Path, source: str) -> Iterator[Row | RecordError]:
    """Yield one record for each text file: path as id, first heading as title, all as text."""
    for name in list_text_files(folder):
        printable = f"{source.rstrip('/')}/{name}".encode(errors="backslashreplace").decode()
        with open_bytes(folder / name, printable) as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            limit = MAX_RECORD_BYTES >> 20
            yield RecordError(printable, None, f"longer than {limit} MiB, which is the limit")
            continue
        text, problem = decode(data, first=True)
        if problem:
            yield RecordError(printable, None, problem)
            continue
        title = find_title(text, name)
        yield Row(printable, None, {"_id": name, "title": title, "text": text})


def find_title(text: str, name: str) -> str:
    """Return the first Markdown or reStructuredText heading, "" where there is none."""
    lines = text[:_TITLE_CHARACTERS].splitlines()
    if name.lower().endswith(".md"):
        return _markdown_title(lines)
    if name.lower().endswith(".rst"):
        return _rst_title(lines)
    return ""


def _markdown_title(lines: list[str]) -> str:
    start = 0
    if lines and lines[0].rstrip() == "---" and "---" in (line.rstrip() for line in lines[1:]):
        start = next(i for i, line in enumerate(lines) if i and line.rstrip() == "---") + 1
    fenced = False
    previous = ""
    for line in lines[start:]:
        if _FENCE.match(line):
            fenced = not fenced
            previous = ""
        elif not fenced:
            heading = _ATX.fullmatch(line)
            if heading and heading["title"]:
                return heading["title"]
            if previous and _SETEXT.fullmatch(line):
                return previous
            previous = line.strip()
    return ""


def _rst_title(lines: list[str]) -> str:
    for title, line in pairwise(lines):
        wide = len(line.rstrip()) >= len(title.strip()) > 0
        if wide and _ADORNMENT.fullmatch(line) and not _ADORNMENT.fullmatch(title):
            return title.strip()
    return ""
