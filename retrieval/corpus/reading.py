"""``read_corpus`` and ``read_queries``: any source as a stream of checked records."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from sys import getsizeof
from typing import TypeAlias, TypeVar

import numpy as np

from retrieval.corpus.lines import check_encoding
from retrieval.corpus.records import DocumentReader, to_query
from retrieval.corpus.roles import Layout, choose_fields
from retrieval.corpus.roots import NO_FOLDERS
from retrieval.corpus.sources import Part, Source, Sources, find_documents, find_queries
from retrieval.corpus.values import Reading, Row, StoredFiles, shorten
from retrieval.errors import DuplicateIdError, EmptyCorpusError, RecordError, UsageError, count_noun
from retrieval.types import Document, Query

NOTHING_NAMED = Layout()
FOLDERS = "folders"
"""The entry of a layout that ``Roots`` reads."""

_PARTS = 16
_FEWEST_RECENT = 256
_RECENT_SHARE = 16


class IdSet:
    """Remembers which ids were added, in 10 to 15 bytes per id however long the ids are.

    Keeps a 64-bit BLAKE2b hash of each id: recent ones in sets, the others, at least 16 times as
    many, in sorted arrays. Two different ids are taken for one with probability N**2 / 2**65: 3e-8
    at a million ids, 3e-4 at a hundred million. The hashes are in 16 parts by their low bits, each
    of which is sorted on its own: that needs scratch memory for one part only.
    """

    def __init__(self) -> None:
        self._recent: list[set[int]] = [set() for _ in range(_PARTS)]
        self._sorted = [array("Q") for _ in range(_PARTS)]
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, identifier: str) -> bool:
        """Add an id; return True where it is new, False where it was there already."""
        value = int.from_bytes(blake2b(identifier.encode(), digest_size=8).digest(), "little")
        part = value % _PARTS
        recent, ordered = self._recent[part], self._sorted[part]
        place = bisect_left(ordered, value)
        if value in recent or (place < len(ordered) and ordered[place] == value):
            return False
        recent.add(value)
        self._length += 1
        if len(recent) > max(_FEWEST_RECENT, len(ordered) // _RECENT_SHARE):
            merged = np.concatenate([np.array(ordered), np.array(sorted(recent), np.uint64)])
            merged.sort(kind="stable")  # which merges two sorted runs
            self._sorted[part] = array("Q", merged.tobytes())
            recent.clear()
        return True

    @property
    def size_bytes(self) -> int:
        """Memory that the hashes take."""
        sets = sum(getsizeof(recent) + 32 * len(recent) for recent in self._recent)
        return sets + sum(8 * len(ordered) for ordered in self._sorted)


_MESSAGES_KEPT = 5

Record = TypeVar("Record", Document, Query)


def read_corpus(
    source: Sources,
    *,
    skip_bad: bool = False,
    limit: int | None = None,
    id: str = "",
    title: str = "",
    text: str | Sequence[str] = (),
    text_template: str = "",
    encoding: str = "",
    sql: str = "",
    types: Mapping[str, str] | None = None,
    earlier: Mapping[str, str] | None = None,
) -> Corpus:
    """Return the documents of a source, read anew and checked each time they are iterated.

    Sources:

    - a ``.jsonl`` or ``.ndjson`` file, or a BEIR folder (with ``corpus.jsonl`` or
      ``corpus.jsonl.gz``): one JSON object per line, blank lines ignored;
    - a ``.csv`` file (RFC 4180 quotes; commas, semicolons, tabs or bars), a ``.tsv`` file (a
      quote is text, a record is a line), both with a header row, or without one if they hold ids
      and texts; all of these also with ``.gz``;
    - a ``.parquet`` file;
    - a file of text, Markdown, reStructuredText, HTML, PDF, DOCX, EPUB, e-mail, a Jupyter notebook
      or source code (``retrieval.corpus.documents.FORMATS``), or a folder of them, searched
      recursively. Left out are hidden names, ``node_modules``, links that lead out of the folder,
      and what a .gitignore lists. The title is the first heading; ``path`` and ``modified`` are
      metadata, and so is the front matter of Markdown;
    - a folder without such files that holds files of records of one format;
    - ``"-"``: JSON lines from stdin, which can be iterated once;
    - ``"python-stdlib"``: the docstrings of this Python's standard library;
    - ``https://``, ``s3://`` or ``gs://``: a file, and of a store also a folder or a pattern, read
      as one of this machine; the id of a document is its address;
    - ``hf://datasets/OWNER/NAME``, or a file in one: a data set of a model hub, streamed;
    - with ``sql``: a file of SQLite or DuckDB, or ``postgresql://USER@HOST/DATABASE``;
    - several of these, or a pattern such as ``"docs/*.md"``.

    "-" and "python-stdlib" are meant where ``source`` is that very string; a ``Path`` always names
    a file or folder, and so does ``"./python-stdlib"``.

    The id of a file is the name of the folder that was named, and the path in it: ``docs/a.md``
    for "docs", "./docs/" or "/home/me/docs", and for "docs/a.md" by itself; see ``Roots``. A
    message of an .mbox has its Message-ID besides.

    The id is the first of the fields ``_id``, ``id``, ``doc_id``, ``docid``, in any case: a string
    of 1 to 1024 bytes (blanks allowed, control characters not) or an integer, which becomes a
    string. The text is the first of ``text``, ``contents``, ``content``, ``body`` and may be empty.
    ``title`` may be missing or null. Where the first records have none of these, common names
    (url, headline, description ...) stand in; an id is made from the content where no field can
    be one. ``Corpus.notes`` says so. Every other field is metadata with its own type: NaN is null
    and infinity the largest number, dates are ISO 8601, objects JSON text; the entries of an
    object called ``metadata`` (BEIR) become metadata under their own names. In a CSV or TSV file
    an empty cell is null, and a column of nothing but numbers, or true and false, has their type.

    Text is UTF-8, with or without a byte order mark, UTF-16 with one, or in CSV, TSV and text
    files another encoding that can be told from its letters. A line or text file is 64 MiB long
    at most.

    Parameters
    ----------
    source : see above.
    skip_bad : count bad records in ``Corpus.skipped`` and go on, instead of raising.
    limit : the number of documents after which to stop.
    id, title, text : the fields that hold them, as ``Layout`` describes; several fields of a text
        are joined by line ends.
    text_template : the text with fields in braces, instead of ``text``.
    encoding : of text files, as Python names it.
    sql : a query whose records are the documents; the source is then the database.
    types : of the fields of an index, by name: a column whose field is a "string" stays text.
    earlier : ``Corpus.layout`` of the documents that an index holds already: what it names is used
        again wherever nothing else is named and the records have those fields.

    Raises
    ------
    UsageError : no reader for the extension, ``limit`` is below 1, a folder holds records of
        several formats, or mainly records beside a few text files, or the fields are misnamed.
    SourceNotFoundError : there is no such file or folder.
    EmptyCorpusError : the folder holds no file that can be read.
    StorageError : the folder cannot be listed.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; it must be 1 or more, or left out to read everything.")
    fields = text.split(",") if isinstance(text, str) else text
    layout = Layout(id, title, tuple(name for name in fields if name), text_template)
    if encoding:
        check_encoding(encoding)
    found = find_documents(source, (earlier or {}).get(FOLDERS, NO_FOLDERS), sql)
    _check_ids(found, earlier)
    if layout and all(part.plain for part in found.parts):
        raise UsageError(
            f"{found.name} holds no fields to name: each of its files is one document. Leave "
            "--id, --title and --text out."
        )
    return Corpus(
        found,
        skip_bad=skip_bad,
        limit=limit,
        layout=layout,
        encoding=encoding or (earlier or {}).get("encoding", ""),
        types=types,
        earlier=Layout.from_json(earlier or {}),
        reread=bool(encoding) and encoding != (earlier or {}).get("encoding"),
    )


def _check_ids(source: Source, earlier: Mapping[str, str] | None) -> None:
    """Raise UsageError if files of an index of an earlier version had ids of another kind."""
    if earlier is None or FOLDERS in earlier:
        return
    file = next((file for part in source.parts for file in part.files), None)
    if file is not None:
        raise UsageError(
            f"{file.name} would get the id {file.doc_id!r}, but this index does not say how ids of "
            f"its files were made: an earlier version, which left out the folder's name, or a "
            f"program made it. Index the corpus again: millpond index {source.name} --out DIR"
        )


def read_queries(path: str | Path, *, skip_bad: bool = False) -> Queries:
    """Return an iterator over the queries of a file, a BEIR folder or stdin (``"-"``).

    JSON lines hold the id under ``_id``, ``query_id``, ``id`` or ``qid`` and the text under
    ``text`` or ``query``. A ``.tsv`` file holds two columns, id and text, without a header, or
    any columns under a header that names these two. Both also with ``.gz``.

    Raises
    ------
    UsageError, SourceNotFoundError : as ``read_corpus``.
    RecordError, EmptyCorpusError, StorageError, FailureError : while iterating, as ``Corpus``.
    """
    return Queries(find_queries(path), skip_bad=skip_bad)


@dataclass(slots=True)
class _Tally:
    """What one iteration skipped, and what its readers had to tell."""

    skipped: int = 0
    repeated: int = 0
    messages: list[str] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    def bad(self, error: RecordError) -> None:
        self.skipped += 1
        if len(self.messages) < _MESSAGES_KEPT:
            self.messages.append(str(error))

    def note(self, line: str) -> None:
        self.notes[line] = None


class _Reader:
    """What Corpus and Queries say of the bad records that the last iteration skipped."""

    def __init__(self) -> None:
        self._tally = _Tally()

    @property
    def skipped(self) -> int:
        """The number of bad records skipped so far by the last iteration."""
        return self._tally.skipped

    @property
    def first_skipped(self) -> tuple[str, ...]:
        """What was wrong with the first five records that were skipped."""
        return tuple(self._tally.messages)


class Corpus(_Reader):
    """The documents of one source; made by ``read_corpus``.

    Iterating starts from the beginning each time and holds one record (of Parquet: 64) in
    memory, and 10 to 15 bytes for each id.

    Raises
    ------
    RecordError, DuplicateIdError : while iterating: a bad record, unless ``skip_bad``.
    EmptyCorpusError : at the end of an iteration that yielded nothing.
    FailureError : a damaged gzip or Parquet file.
    StorageError : the file cannot be read.
    UsageError : a second iteration over stdin.
    """

    def __init__(
        self,
        source: Source,
        *,
        skip_bad: bool,
        limit: int | None = None,
        layout: Layout = NOTHING_NAMED,
        encoding: str = "",
        types: Mapping[str, str] | None = None,
        earlier: Layout = NOTHING_NAMED,
        reread: bool = False,
    ) -> None:
        super().__init__()
        self._source = source
        self._skip_bad = skip_bad
        self._limit = limit
        self._asked, self._earlier = layout, earlier
        self._layout = earlier
        self._encoding = encoding
        self._types = types or {}
        self._reread = reread
        self._started = False

    @property
    def name(self) -> str:
        """The source as it was typed; ``"stdin"`` for ``"-"``."""
        return self._source.name

    @property
    def layout(self) -> Mapping[str, str]:
        """How the next corpus of the same index is read alike: ``earlier`` of ``read_corpus``.

        The fields that were named or guessed ("id", "title", "text", "template"), by role, and
        the "folders" whose names begin the ids of files. A guess is known once the first document
        has been read.
        """
        return {**(self._layout or self._asked).to_json(), FOLDERS: self._source.folders}

    @property
    def notes(self) -> tuple[str, ...]:
        """A line on each thing to know of how the last iteration read: guesses, what was left out.

        Most are known once the first document has been read, all of them after the last.
        """
        found = [*self._source.notes, *self._tally.notes]
        if self._tally.repeated:
            what = count_noun(self._tally.repeated, "record repeats", "records repeat")
            found.append(f"{self.name}: {what} an earlier one and was left out.")
        return tuple(found)

    @property
    def count_hint(self) -> int | None:
        """The number of records where that is cheap to know (at most ``limit``), else None.

        Known for Parquet, for folders of text files and for ``python-stdlib``; bad records
        count.
        """
        count = self._source.count()
        return count if count is None or self._limit is None else min(count, self._limit)

    @property
    def only_files(self) -> bool:
        """Whether all documents are files, or parts of files."""
        return all(part.files for part in self._source.parts)

    def __iter__(self) -> Iterator[Document]:
        return self.since(StoredFiles())

    def since(self, files: StoredFiles) -> Iterator[Document]:
        """Iterate without the files that an index holds as they are now; ``files`` lists them."""
        if self._source.once and self._started:
            raise UsageError(
                f"{self.name} was read already and cannot be read again. "
                f"Save it to a .jsonl file and name that file instead of -."
            )
        self._started = True
        self._tally = _Tally()
        self._layout = self._earlier
        if self._reread:
            files.known = {}
        rows = chain.from_iterable(self._read(part, files) for part in self._source.parts)
        documents = _sieve(self._source, rows, self._tally, files, skip_bad=self._skip_bad)
        return islice(documents, self._limit)

    def _read(self, part: Part, files: StoredFiles) -> Iterator[_Built]:
        """Yield the rows of a part, each with what makes a document of it."""
        rows = part.rows(Reading(self._tally.note, self._encoding, self._types, files))
        sample = [] if part.plain else list(_sample(rows, self._limit))
        good = [row for row in sample if isinstance(row, Row)]
        chosen = Layout()
        if good:
            chosen, line = choose_fields(good, self._asked.filled(self._layout, good))
            self._layout = chosen or self._layout  # of sources that differ, the last that says
            if line:
                self._tally.note(line)
        build = DocumentReader(chosen)
        yield from ((row, build) for row in chain(sample, rows))


_Built: TypeAlias = tuple[Row | RecordError, Callable[[Row], Document]]
_SAMPLE_ROWS = 1000
_SAMPLE_CHARACTERS = 1 << 20
_SIMPLE = frozenset(["_id", "id", "doc_id", "docid"])


def _sample(rows: Iterator[Row | RecordError], limit: int | None) -> Iterator[Row | RecordError]:
    """Yield the first rows: one with the usual fields and a title, or enough to guess from."""
    characters = 0
    for number, row in enumerate(rows, start=1):
        yield row
        if isinstance(row, Row):
            if _SIMPLE & row.values.keys() and {"title", "text"} <= row.values.keys():
                return
            characters += sum(len(v) for v in row.values.values() if isinstance(v, str))
        if number >= min(_SAMPLE_ROWS, limit or _SAMPLE_ROWS) or characters > _SAMPLE_CHARACTERS:
            return


class Queries(_Reader, Iterator[Query]):
    """The queries of one source, once; made by ``read_queries``."""

    def __init__(self, source: Source, *, skip_bad: bool) -> None:
        super().__init__()
        reading = Reading(self._tally.note)
        rows = ((row, to_query) for part in source.parts for row in part.rows(reading))
        self._queries = _sieve(source, rows, self._tally, reading.files, skip_bad=skip_bad)

    def __next__(self) -> Query:
        return next(self._queries)


def _sieve(
    source: Source,
    rows: Iterator[tuple[Row | RecordError, Callable[[Row], Record]]],
    tally: _Tally,
    files: StoredFiles,
    *,
    skip_bad: bool,
) -> Iterator[Record]:
    """Yield the good records; raise at the first bad one, or note it in the tally."""
    seen = IdSet()
    for row, build in rows:
        record = _build_once(row, build, seen)
        if not isinstance(record, RecordError):
            yield record
        elif isinstance(record, DuplicateIdError) and getattr(build, "makes_ids", False):
            tally.repeated += 1
        elif skip_bad:
            tally.bad(record)
        else:
            raise _with_advice(record, source.noun)
    if len(seen) == 0 and not files.unread:
        raise _empty(source, tally)


def _build_once(
    row: Row | RecordError, build: Callable[[Row], Record], seen: IdSet
) -> Record | RecordError:
    """Return the record or what is wrong with it; the id of a good record counts as seen."""
    if isinstance(row, RecordError):
        return row
    try:
        record = build(row)
    except RecordError as error:
        return error
    identifier = record.doc_id if isinstance(record, Document) else record.query_id
    if seen.add(identifier):
        return record
    return DuplicateIdError(
        row.source,
        row.line,
        f"the id {shorten(identifier)} belongs to an earlier record already; "
        f"expected one record per id",
    )


def _with_advice(error: RecordError, noun: str) -> RecordError:
    return type(error)(
        error.source,
        error.line,
        f"{error.problem}. Fix it, or pass --skip-bad to count such {noun}s and go on",
    )


def _empty(source: Source, tally: _Tally) -> EmptyCorpusError:
    if tally.skipped:
        what = count_noun(tally.skipped, f"{source.noun} was", f"{source.noun}s were")
        return EmptyCorpusError(
            f"{source.name}: nothing is left: {what} bad and skipped. The first: "
            f"{tally.messages[0]}. Fix the input."
        )
    return EmptyCorpusError(
        f"{source.name}: it holds no {source.noun}; expected one {source.noun} or more. Check that "
        f"this is the file you meant."
    )
