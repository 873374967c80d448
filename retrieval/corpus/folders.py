"""Folders of files: which are read, which are passed over, and text files as records."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.corpus.encodings import guess_encoding, read_mark
from retrieval.corpus.formats import MAX_RECORD_BYTES, decode, open_bytes
from retrieval.corpus.values import Reading, Row
from retrieval.errors import RecordError, StorageError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = ["TEXT_SUFFIXES", "Listing", "TextFile", "find_title", "list_folder", "text_rows"]

TEXT_SUFFIXES = (".txt", ".md", ".rst")
LEFT_OUT = ("node_modules", "__pycache__")
IGNORE_FILE = ".gitignore"

_TITLE_CHARACTERS = 1 << 16
_ATX = re.compile(r" {0,3}#{1,6}[ \t]+(?P<title>.*?)(?:[ \t]+#+)?[ \t]*")
_SETEXT = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*")


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file that is one document; ``name`` is its path as messages show it."""

    path: Path
    name: str
    doc_id: str


@dataclass(slots=True)
class Listing:
    """What a folder holds, by relative paths with forward slashes, in their order.

    Attributes
    ----------
    texts : text files.
    tables : files of records, by ending (``.jsonl``, ``.csv.gz``).
    others : how many other files there are, by ending; "" for names without one.
    ignored : how many files and folders a .gitignore lists.
    loops : links that lead to themselves.
    """

    texts: list[str] = field(default_factory=list)
    tables: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    loops: list[str] = field(default_factory=list)


def list_folder(folder: Path, tables: Sequence[str]) -> Listing:
    """Return what a folder holds, with the folders in it.

    Names beginning with a dot, ``node_modules``, ``__pycache__`` and what a .gitignore lists are
    left out, and links to folders are not followed. ``tables`` are the endings of files of records.

    Raises
    ------
    StorageError : a folder cannot be listed.
    """
    listing = Listing()
    _list(folder, "", tuple(tables), _outer_rules(folder.resolve()), listing)
    return listing


Rules = list[tuple[Path, "GitIgnoreSpec"]]
"""The .gitignore files that apply, each with its folder, the nearest one last."""


def _list(root: Path, prefix: str, tables: tuple[str, ...], rules: Rules, found: Listing) -> None:
    here = root / prefix
    try:
        with os.scandir(here) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise StorageError(
            f"{here}: the folder cannot be listed ({error.strerror}). Check that you may read "
            f"it: ls -ld {here}"
        ) from error
    own = [*rules, *_read_rules(here.resolve())]
    # The slash makes folder by folder the same order as sorting the whole paths.
    for name in sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in visible):
        path = here.resolve() / name
        if _is_ignored(path, name.endswith("/"), own):
            found.ignored += 1
        elif name.endswith("/"):
            if name[:-1] not in LEFT_OUT:
                _list(root, prefix + name, tables, own, found)
        else:
            _sort(path, prefix + name, tables, found)


def _sort(path: Path, name: str, tables: tuple[str, ...], found: Listing) -> None:
    lower = name.lower()
    ending = next((suffix for suffix in tables if lower.endswith(suffix)), "")
    try:
        is_file = path.is_file()
    except OSError:  # Python 3.11 to 3.12 raise for a loop, later ones do not
        is_file = False
    if not is_file:
        if path.is_symlink() and _is_loop(path):
            found.loops.append(name)
        elif not path.is_dir():
            found.others["(broken link)" if path.is_symlink() else "(no file)"] += 1
    elif lower.endswith(TEXT_SUFFIXES):
        found.texts.append(name)
    elif ending:
        found.tables.setdefault(ending, []).append(name)
    else:
        found.others[path.suffix.lower()] += 1


def _is_loop(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _read_rules(folder: Path) -> Rules:
    """Return the rules of the folder's own .gitignore, if it has one that can be read."""
    from pathspec import GitIgnoreSpec

    try:
        lines = (folder / IGNORE_FILE).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [(folder, GitIgnoreSpec.from_lines(filter(_is_pattern, lines)))]


def _is_pattern(line: str) -> bool:
    """Whether a line of a .gitignore can be read; git passes over the others too."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _outer_rules(folder: Path) -> Rules:
    """Return the rules of the folders above, up to the repository's; none if they list this one."""
    above: list[Path] = []
    if not (folder / ".git").exists():
        for parent in folder.parents:
            above.append(parent)
            if (parent / ".git").exists():
                break
        else:
            return []
    rules = [rule for parent in reversed(above) for rule in _read_rules(parent)]
    return [] if _is_ignored(folder, True, rules) else rules


def _is_ignored(path: Path, is_folder: bool, rules: Rules) -> bool:
    """Whether the last rule that says anything of a path says that it is ignored."""
    for folder, spec in reversed(rules):
        relative = path.relative_to(folder).as_posix() + "/" * is_folder
        verdict = spec.check_file(relative).include
        if verdict is not None:
            return verdict
    return False


def text_rows(files: Sequence[TextFile], reading: Reading) -> Iterator[Row | RecordError]:
    """Yield one record per text file, with the first heading as its title."""
    for file in files:
        with open_bytes(file.path, file.name) as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            limit = MAX_RECORD_BYTES >> 20
            yield RecordError(file.name, None, f"longer than {limit} MiB, which is the limit")
            continue
        encoding = reading.encoding or read_mark(data[:4]) or guess_encoding(data.splitlines())
        if encoding != "utf-8":
            data = data.decode(encoding, errors="replace").encode(errors="replace")
            if not reading.encoding:
                reading.note(f"{file.name}: read as {encoding}. Another one: --encoding NAME")
        text, problem = decode(data, first=True)
        if problem:
            yield RecordError(file.name, None, problem)
            continue
        title = find_title(text, file.name)
        yield Row(file.name, None, {"_id": file.doc_id, "title": title, "text": text})


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
