"""``find_documents`` and ``find_queries``: the readers that the names of sources stand for."""

from __future__ import annotations

import difflib
import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from retrieval.corpus.documents.registry import (
    EXTRA,
    FORMATS,
    DocumentFile,
    available,
    file_rows,
    find_format,
    lacking,
)
from retrieval.corpus.folders import Listing, list_folder
from retrieval.corpus.formats import count_parquet, parquet_rows, sheet_rows
from retrieval.corpus.lines import jsonl_rows
from retrieval.corpus.qrels import find_beir_file
from retrieval.corpus.records import QUERY_FIELDS
from retrieval.corpus.remote import (
    RemoteFile,
    dataset_name,
    dataset_rows,
    describe_database,
    find_remote,
    hide_password,
    sql_rows,
)
from retrieval.corpus.roots import NO_FOLDERS, Roots, Wanted
from retrieval.corpus.stdlib import STDLIB_NAME, stdlib_rows
from retrieval.corpus.tables import document_rows, query_rows
from retrieval.corpus.values import Reading, Row
from retrieval.errors import (
    EmptyCorpusError,
    RecordError,
    SourceNotFoundError,
    StorageError,
    UsageError,
    check_type,
    count_noun,
)

Sources: TypeAlias = str | Path | Sequence[str | Path]
"""One source by name, or several that are read as one."""

Rows: TypeAlias = Iterator[Row | RecordError]
Reader: TypeAlias = Callable[[Path, str, Reading], Rows]


def _read_jsonl(path: Path | None, source: str, reading: Reading) -> Rows:
    return jsonl_rows(path, source, reading.encoding)


_DOCUMENT_READERS: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": partial(document_rows, tabs=False),
    ".tsv": partial(document_rows, tabs=True),
    ".parquet": lambda path, source, _: parquet_rows(path, source),
    ".xlsx": sheet_rows,
    ".xls": sheet_rows,
    ".ods": sheet_rows,
}
_UNZIPPED = (".parquet", ".xlsx", ".xls", ".ods")
"""Files of these endings are read only as they are, not with .gz."""
_QUERY_READERS: dict[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".tsv": lambda path, source, _: query_rows(path, source, QUERY_FIELDS),
}
_TABLE_ENDINGS = (
    *(f"{suffix}.gz" for suffix in _DOCUMENT_READERS if suffix not in _UNZIPPED),
    *_DOCUMENT_READERS,
)
_SHOWN_FORMATS = (".txt", ".md", ".rst", ".html", ".pdf", ".docx", ".py")
_DOCUMENTS_ACCEPTED = (
    "a .jsonl, .ndjson, .csv or .tsv file (also with .gz), a .parquet, .xlsx, .xls or .ods file, a "
    f"BEIR folder (with corpus.jsonl), {', '.join(_SHOWN_FORMATS)} and other files or a folder of "
    "them, an address (https://, s3://, gs://, hf://datasets/OWNER/NAME), - for JSON lines on "
    f"stdin, or {STDLIB_NAME}"
)
_QUERIES_ACCEPTED = (
    "a .jsonl, .ndjson or .tsv file (also with .gz), a BEIR folder (with queries.jsonl), or - "
    "for JSON lines on stdin"
)


def _unknown_count() -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """A file of records, or files that are documents.

    Attributes
    ----------
    rows : starts reading from the beginning.
    count : the number of records where that is cheap to know, else None.
    once : the records can be read only once.
    files : the documents, if that is what it is; ``rows`` reads them.
    loops : links that lead to themselves beside them.
    lacking : files beside them whose readers are not installed.
    plain : the fields have their usual names, since we gave them.
    """

    rows: Callable[[Reading], Rows]
    count: Callable[[], int | None] = _unknown_count
    once: bool = False
    files: tuple[DocumentFile, ...] = ()
    loops: tuple[str, ...] = ()
    lacking: tuple[DocumentFile, ...] = ()
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where records come from.

    Attributes
    ----------
    name : as the user typed it; "stdin" for "-".
    parts : read one after the other.
    notes : lines on what is not read.
    noun : what messages call a record.
    folders : those whose names begin the ids of files, as ``Roots`` writes them.
    """

    name: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    noun: str = "record"
    folders: str = NO_FOLDERS

    @property
    def once(self) -> bool:
        """Whether the records can be read only once."""
        return any(part.once for part in self.parts)

    def count(self) -> int | None:
        """Return the number of records where that is cheap to know, else None."""
        counts = [part.count() for part in self.parts]
        return None if None in counts else sum(count for count in counts if count is not None)


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ABOUT_DATA = ("readme", "license", "licence", "changelog", "contributing", "citation", "notice")
"""How the names of text files begin that describe what is beside them."""
_NAMES_COMPARED = 10_000
_NAMES_SHOWN = 3
_STDIN = Part(partial(_read_jsonl, None, "stdin"), once=True)
_STDLIB = Part(lambda _: iter(stdlib_rows()), lambda: len(stdlib_rows()), plain=True)


def find_documents(source: Sources, folders: str = NO_FOLDERS, sql: str = "") -> Source:
    """Return where the documents of one or more sources come from; see ``read_corpus``.

    Parameters
    ----------
    folders : those that an index knows already, which decide the ids of their files.
    """
    found = _database(source, sql) if sql else _find(source)
    files = [file for part in found.parts for file in part.files]
    if not files and folders == NO_FOLDERS:
        return found
    notes = list(found.notes)
    try:
        roots = Roots.from_json(folders)
    except ValueError as error:
        raise UsageError(f"The manifest is not as millpond writes it: {error}.") from None
    roots.add({file.root: None for file in files}, notes.append)
    seen: set[Path] = set()
    parts = []
    for part in found.parts:
        named = []
        for file in part.files:
            if file.identity not in seen:
                seen.add(file.identity)
                named.append(_with_id(file, roots))
        lacking = [_with_id(file, roots) for file in part.lacking]
        parts.append(_file_part(named, part.loops, lacking) if part.files else part)
    return Source(found.name, tuple(parts), tuple(notes), folders=roots.to_json())


def _with_id(file: DocumentFile, roots: Roots) -> DocumentFile:
    return replace(file, doc_id=_printable(roots.doc_id(file.identity)))


def _find(source: Sources) -> Source:
    if isinstance(source, str | Path):
        return _find_one(source)
    found = [_find_one(each) for each in _expand(source)]
    if not found:
        raise UsageError(f"No source was given. Expected {_DOCUMENTS_ACCEPTED}.")
    if len(found) == 1:
        return found[0]
    name = ", ".join(each.name for each in found[:_NAMES_SHOWN])
    more = len(found) - _NAMES_SHOWN
    name = f"{name} and {more} more" if more > 0 else name
    parts = tuple(part for each in found for part in each.parts)
    notes = tuple(note for each in found for note in each.notes)
    return Source(name, parts, notes)


def _database(source: Sources, sql: str) -> Source:
    names = [str(source)] if isinstance(source, str | Path) else [str(each) for each in source]
    if len(names) != 1:
        raise UsageError(f"--sql asks one database, and {len(names)} sources were given.")
    rows = partial(sql_rows, names[0], sql)
    return Source(hide_password(names[0]), (Part(lambda _: rows()),))


def _expand(sources: Sequence[str | Path]) -> Iterator[str | Path]:
    """Yield the sources, each once, with what a pattern stands for in its place."""
    seen = set()
    for source in sources if isinstance(sources, Iterable) else [sources]:
        check_type("A source", source, (str, Path), "the name of a file or folder")
        for each in _matches(source) or [source]:
            if str(each) not in seen:
                seen.add(str(each))
                yield each


def _matches(source: str | Path) -> list[str | Path]:
    """Return the files that a pattern matches; none where it is the name of a file."""
    name = str(source)
    if not glob.has_magic(name) or Path(name).exists():
        return []
    return sorted(glob.glob(name, recursive=True))  # noqa: PTH207, which takes no absolute pattern


def _find_one(source: str | Path) -> Source:
    if source == "-":
        return Source("stdin", (_STDIN,))
    if source == STDLIB_NAME:
        return Source(STDLIB_NAME, (_STDLIB,))
    name = str(source)
    if isinstance(source, str) and _ADDRESS.match(name):
        return _remote(name)
    matches = _matches(source)
    if matches:
        return replace(_find(matches), name=name)
    path = _existing(name, _DOCUMENTS_ACCEPTED, builtins=(STDLIB_NAME,))
    if path.is_dir():
        return _folder_source(path, name)
    if name.lower().endswith(_TABLE_ENDINGS):
        return Source(name, (_table_part(path, name),))
    suffix = find_format(path.name)
    if not suffix and describe_database(path):
        raise UsageError(
            f"{name}: this is a database. Type which records are the documents: --sql "
            "'SELECT id, title, text FROM TABLE'"
        )
    if lacking(suffix):
        raise UsageError(f"{name}: what reads {suffix} is not installed. Type: {EXTRA}")
    if available(suffix):
        file = DocumentFile(Wanted(path.parent, deep=False), path.name, name)
        return Source(name, (_file_part([file]),))
    return Source(name, (_table_part(path, name),))


def _remote(name: str) -> Source:
    """Return what an address names: a data set, or files."""
    if dataset_name(name):
        return Source(name, (Part(lambda reading: dataset_rows(name, reading.note)),))
    if name.lower().startswith("hf://datasets/") and name.rstrip("/").count("/") < 4:
        raise UsageError(f"{name}: expected hf://datasets/OWNER/NAME.")
    parts, passed = [], Counter[str]()
    found = find_remote(name)
    for file in found:
        suffix = find_format(file.inside)
        if lacking(suffix):
            raise UsageError(f"{file.name}: what reads {suffix} is not installed. Type: {EXTRA}")
        if available(suffix) or file.inside.lower().endswith(_TABLE_ENDINGS) or len(found) == 1:
            parts.append(_remote_part(file))
        else:
            passed[Path(file.inside).suffix or "without an ending"] += 1
    if not parts:
        raise EmptyCorpusError(f"{hide_password(name)}: there is no file that can be read.")
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(passed.items()))
    notes = (f"{hide_password(name)}: passed over {kinds}.",) if kinds else ()
    return Source(hide_password(name), tuple(parts), notes)


def _remote_part(file: RemoteFile) -> Part:
    """Return a file at an address, whose id is the address if it is a document."""
    if not available(find_format(file.inside)):
        table = _file_reader(Path(file.inside), file.name, _DOCUMENT_READERS, _DOCUMENTS_ACCEPTED)
        return Part(lambda reading: table(file.fetch(), file.name, reading))

    def rows(reading: Reading) -> Rows:
        place = file.fetch()
        copy = DocumentFile(Wanted(place.parent, False), place.name, file.name, file.name)
        yield from file_rows([copy], reading)

    return Part(rows, plain=True)


def _table_part(path: Path, name: str) -> Part:
    reader = _file_reader(path, name, _DOCUMENT_READERS, _DOCUMENTS_ACCEPTED)
    counted = path.suffix.lower() == ".parquet"
    count = partial(count_parquet, path, name) if counted else _unknown_count
    return Part(partial(reader, path, name), count)


def _file_part(
    files: Sequence[DocumentFile],
    loops: Sequence[str] = (),
    lacking: Sequence[DocumentFile] = (),
) -> Part:
    def rows(reading: Reading) -> Rows:
        reading.files.failed.extend(file.doc_id for file in lacking)
        yield from file_rows(files, reading)
        yield from (RecordError(loop, None, "a link that leads to itself") for loop in loops)

    def count() -> int | None:
        return None if any(file.inside.lower().endswith(".mbox") for file in files) else len(files)

    parts = tuple(files), tuple(loops), tuple(lacking)
    return Part(rows, count, False, *parts, plain=True)


def find_queries(source: str | Path) -> Source:
    """Return where the queries of a source come from; see ``read_queries``."""
    if source == "-":
        return Source("stdin", (_STDIN,))
    name = str(source)
    path = _existing(name, _QUERIES_ACCEPTED)
    if not path.is_dir():
        reader = _file_reader(path, name, _QUERY_READERS, _QUERIES_ACCEPTED)
        return Source(name, (Part(partial(reader, path, name)),))
    beir = find_beir_file(path, "queries")
    if beir is None:
        raise SourceNotFoundError(
            f"{name}: the folder holds no queries.jsonl. Expected {_QUERIES_ACCEPTED}."
        )
    return Source(name, (Part(partial(_read_jsonl, beir, _inside(name, beir.name))),))


def _folder_source(path: Path, name: str) -> Source:
    beir = find_beir_file(path, "corpus")
    if beir is not None:
        return Source(name, (Part(partial(_read_jsonl, beir, _inside(name, beir.name))),))
    listing = list_folder(path, _TABLE_ENDINGS)
    if not listing.files:
        return _folder_of_tables(path, name, listing)
    if listing.tables:
        _refuse_descriptions(path, name, listing)
    root = Wanted(path, deep=True)
    absent = [each for found in listing.lacking.values() for each in found]
    files, lacking = (
        [DocumentFile(root, each, _printable(_inside(name, each))) for each in found]
        for found in (listing.files, absent)
    )
    loops = [_printable(_inside(name, each)) for each in listing.loops]
    passed = _passed_over(path, name, listing, tables=True)
    return Source(name, (_file_part(files, loops, lacking),), (passed,) if passed else ())


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _folder_of_tables(path: Path, name: str, listing: Listing) -> Source:
    """Return the files of records of a folder without text files, all of one format."""
    if len(listing.tables) > 1:
        kinds = ", ".join(f"{len(found)} {suffix}" for suffix, found in listing.tables.items())
        raise UsageError(
            f"{name}: the folder holds files of several formats ({kinds}). Type which: "
            f"millpond index {_pattern(path, next(iter(listing.tables.items())))} ..."
        )
    if not listing.tables:
        passed = _passed_over(path, name, listing, tables=False)
        raise EmptyCorpusError(
            f"{name}: the folder holds neither corpus.jsonl nor a file that can be read."
            f"{' ' + passed if passed else ''} Expected {_DOCUMENTS_ACCEPTED}."
        )
    (found,) = listing.tables.values()
    parts = tuple(_table_part(path / each, _printable(_inside(name, each))) for each in found)
    passed = _passed_over(path, name, listing, tables=False)
    return Source(name, parts, (passed,) if passed else ())


def _refuse_descriptions(path: Path, name: str, listing: Listing) -> None:
    """Raise UsageError where the files of a folder only describe its files of records."""
    texts = [each for each in listing.files if not FORMATS[find_format(each)].is_code]
    if not all(Path(each).stem.lower().startswith(_ABOUT_DATA) for each in texts):
        return
    kinds = ", ".join(f"{len(found)} {suffix}" for suffix, found in listing.tables.items())
    largest = max(listing.tables.items(), key=lambda item: _size(path, item[1]))
    few = listing.files
    what = count_noun(len(few), "file") + " of text or code"
    first = shlex.quote(_inside(name, few[0]))
    raise UsageError(
        f"{name}: the folder holds {what} and files of records ({kinds}). "
        f"Type which are the documents: millpond index {_pattern(path, largest)} ... or: millpond "
        f"index {first if len(few) == 1 else first + ' ...'}"
    )


def _size(path: Path, names: Sequence[str]) -> int:
    return sum((path / name).stat().st_size for name in names)


def _pattern(path: Path, kind: tuple[str, Sequence[str]]) -> str:
    """Return what to type for the files of one format: the file, or a pattern."""
    suffix, names = kind
    if len(names) == 1:
        return shlex.quote(str(path / names[0]))
    folders = {str(Path(name).parent) for name in names}
    inner = path / folders.pop() / f"*{suffix}" if len(folders) == 1 else path / "**" / f"*{suffix}"
    return shlex.quote(str(inner))


def _passed_over(path: Path, name: str, listing: Listing, *, tables: bool) -> str:
    """Return a line on what of a folder is not read, "" if all of it is."""
    kinds = [f"{len(found)} {suffix}" for suffix, found in listing.tables.items() if tables]
    kinds += [
        f"{count} {suffix or 'without an ending'}"
        for suffix, count in sorted(listing.others.items())
    ]
    if listing.unfollowed:
        one, several = "link to a folder or a file outside", "links to folders or files outside"
        kinds.append(count_noun(listing.unfollowed, one, several))
    if listing.ignored:
        kinds.append(f"{listing.ignored} that .gitignore lists")
    missing = ", ".join(f"{len(each)} {kind}" for kind, each in sorted(listing.lacking.items()))
    if missing:
        kinds.append(f"{missing}, whose readers are not installed ({EXTRA})")
    if not kinds:
        return ""
    line = f"{name}: passed over {', '.join(kinds)}."
    if tables and listing.tables:
        found = _pattern(path, next(iter(listing.tables.items())))
        line += f" Files of records are read by their names: millpond index {found} ..."
    return line


def _inside(name: str, file: str) -> str:
    return f"{name.rstrip('/')}/{file}"


def _file_reader(path: Path, name: str, readers: dict[str, Reader], accepted: str) -> Reader:
    """Return the reader for the file's extension."""
    lower = path.name.lower()
    zipped = lower.endswith(".gz")
    suffix = Path(lower.removesuffix(".gz")).suffix
    reader = readers.get(suffix)
    if reader is None or (zipped and suffix in _UNZIPPED):
        shown = suffix + (".gz" if zipped else "")
        arrived = f"ends in {shown!r}" if shown else "has no extension"
        lines = f" Type: jq -c .[] {shlex.quote(name)} | millpond index -" * (shown == ".json")
        raise UsageError(f"{name}: the name {arrived}. Expected {accepted}.{lines}")
    return reader


def _existing(name: str, accepted: str, builtins: tuple[str, ...] = ()) -> Path:
    """Return the path, which exists; else raise an error that names the nearest that does."""
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
