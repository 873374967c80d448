"""``find_documents`` and ``find_queries``: the reader that a source's name stands for."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

from retrieval.corpus.formats import (
    MAX_RECORD_BYTES,
    count_parquet,
    csv_rows,
    decode,
    jsonl_rows,
    open_bytes,
    parquet_rows,
    tsv_rows,
)
from retrieval.corpus.records import DOCUMENT_FIELDS, QUERY_FIELDS, Row
from retrieval.corpus.stdlib import STDLIB_NAME, stdlib_rows
from retrieval.errors import (
    EmptyCorpusError,
    RecordError,
    SourceNotFoundError,
    StorageError,
    UsageError,
)

__all__ = [
    "TEXT_SUFFIXES",
    "find_title",
    "list_text_files",
    "text_rows",
    "Source",
    "find_documents",
    "find_queries",
]

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
    """Yield one record per text file: the path is the id, the first heading the title."""
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


Reader = Callable[[Path, str], Iterator[Row | RecordError]]

_DOCUMENT_READERS: dict[str, Reader] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".csv": partial(csv_rows, fields=DOCUMENT_FIELDS),
    ".tsv": partial(tsv_rows, fields=DOCUMENT_FIELDS),
    ".parquet": partial(parquet_rows, fields=DOCUMENT_FIELDS),
}
_QUERY_READERS: dict[str, Reader] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".tsv": partial(tsv_rows, fields=QUERY_FIELDS, header_required=False),
}
_DOCUMENTS_ACCEPTED = (
    "a .jsonl, .ndjson, .csv or .tsv file (also with .gz), a .parquet file, a BEIR folder "
    f"(with corpus.jsonl), a folder of {', '.join(TEXT_SUFFIXES)} files, - for JSON lines on "
    f"stdin, or {STDLIB_NAME}"
)
_QUERIES_ACCEPTED = (
    "a .jsonl, .ndjson or .tsv file (also with .gz), a BEIR folder (with queries.jsonl), or - "
    "for JSON lines on stdin"
)


def _unknown_count() -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Source:
    """Where records come from.

    Attributes
    ----------
    name : as the user typed it; "stdin" for "-".
    rows : starts reading from the beginning.
    count : the number of records where that is cheap to know, else None.
    once : the records can be read only once.
    """

    name: str
    rows: Callable[[], Iterator[Row | RecordError]]
    count: Callable[[], int | None] = _unknown_count
    once: bool = False


_NAMES_COMPARED = 10_000
_STDIN = Source("stdin", partial(jsonl_rows, None, "stdin"), once=True)


def find_documents(source: str | Path) -> Source:
    """Return where the documents of a source come from; see ``read_corpus``."""
    if source == "-":
        return _STDIN
    if source == STDLIB_NAME:
        return Source(STDLIB_NAME, lambda: iter(stdlib_rows()), lambda: len(stdlib_rows()))
    name = str(source)
    path = _existing(name, _DOCUMENTS_ACCEPTED, builtins=(STDLIB_NAME,))
    if path.is_dir():
        return _folder_source(path, name)
    reader = _file_reader(path, name, _DOCUMENT_READERS, _DOCUMENTS_ACCEPTED)
    if path.suffix.lower() == ".parquet":
        return Source(name, partial(reader, path, name), partial(count_parquet, path, name))
    return Source(name, partial(reader, path, name))


def find_queries(source: str | Path) -> Source:
    """Return where the queries of a source come from; see ``read_queries``."""
    if source == "-":
        return _STDIN
    name = str(source)
    path = _existing(name, _QUERIES_ACCEPTED)
    if not path.is_dir():
        reader = _file_reader(path, name, _QUERY_READERS, _QUERIES_ACCEPTED)
        return Source(name, partial(reader, path, name))
    beir = _beir_file(path, "queries")
    if beir is None:
        raise SourceNotFoundError(
            f"{name}: the folder holds no queries.jsonl. Expected {_QUERIES_ACCEPTED}."
        )
    return Source(name, partial(jsonl_rows, beir, _inside(name, beir.name)))


def _folder_source(path: Path, name: str) -> Source:
    beir = _beir_file(path, "corpus")
    if beir is not None:
        return Source(name, partial(jsonl_rows, beir, _inside(name, beir.name)))
    if next(list_text_files(path), None) is None:
        raise EmptyCorpusError(
            f"{name}: the folder holds neither corpus.jsonl nor a file that ends in "
            f"{', '.join(TEXT_SUFFIXES)}. Expected {_DOCUMENTS_ACCEPTED}."
        )
    return Source(
        name, partial(text_rows, path, name), lambda: sum(1 for _ in list_text_files(path))
    )


def _beir_file(folder: Path, stem: str) -> Path | None:
    """Return the folder's .jsonl or .jsonl.gz file of that name, None where it has neither."""
    candidates = (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz")
    return next((path for path in candidates if path.is_file()), None)


def _inside(name: str, file: str) -> str:
    return f"{name.rstrip('/')}/{file}"


def _file_reader(path: Path, name: str, readers: dict[str, Reader], accepted: str) -> Reader:
    """Return the reader for the file's extension."""
    lower = path.name.lower()
    zipped = lower.endswith(".gz")
    suffix = Path(lower.removesuffix(".gz")).suffix
    reader = readers.get(suffix)
    if reader is None or (zipped and suffix == ".parquet"):
        shown = suffix + (".gz" if zipped else "")
        arrived = f"ends in {shown!r}" if shown else "has no extension"
        raise UsageError(f"{name}: the name {arrived}. Expected {accepted}.")
    return reader


def _existing(name: str, accepted: str, builtins: tuple[str, ...] = ()) -> Path:
    """Return the path, which exists.

    Raises
    ------
    UsageError : the name is empty.
    SourceNotFoundError : nothing of this name exists; the message names the nearest that does.
    StorageError : the path cannot be looked up.
    """
    if not name:
        raise UsageError(f"The source is an empty name. Expected {accepted}.")
    path = Path(name)
    try:
        if path.exists():
            return path
        nearest = _nearest(path, builtins)
    except OSError as error:
        raise StorageError(
            f"{name}: cannot be looked up ({error.strerror}). Check that you may read its folder: "
            f"ls -ld {path.parent}"
        ) from error
    raise SourceNotFoundError(
        f"{name}: there is no such file or folder.{nearest} Expected {accepted}."
    )


def _nearest(path: Path, builtins: tuple[str, ...]) -> str:
    """Return a sentence with the nearest name in the path's folder, "" where none is near."""
    parent = path.parent
    if not parent.is_dir():
        return f" The folder {str(parent)!r} does not exist either."
    with os.scandir(parent) as entries:
        names = [entry.name for entry in islice(entries, _NAMES_COMPARED)]
    if parent == Path():
        names += builtins
    close = difflib.get_close_matches(path.name, names, n=1)
    if not close:
        return ""
    nearest = close[0] if close[0] in builtins else str(parent / close[0])
    return f" Did you mean {nearest!r}?"
