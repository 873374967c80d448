"""Training pairs as files hold them: one record a query, under the names of several tools.

A record has a query, one positive or a list of them, and any number of negatives:

- millpond: ``query``, ``positive``, ``negatives``;
- sentence-transformers: ``anchor``, ``positive``, ``negative`` or ``negative_1``, ``negative_2``;
- FlagEmbedding: ``query``, ``pos``, ``neg``, both lists;
- tevatron: ``query``, ``positive_passages``, ``negative_passages``, lists of title and text;
- question answering: ``question``, ``answer``.

A BEIR folder with training judgements is read as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval import read_corpus, read_queries
from retrieval.corpus.formats import jsonl_rows, parquet_rows, table_cells
from retrieval.corpus.qrels import Judgement, find_beir, read_qrels
from retrieval.corpus.records import Fields, Row, find_unwritable, type_name
from retrieval.errors import RecordError, SourceNotFoundError, UsageError
from retrieval.plurals import count_noun

__all__ = ["PAIR_FILES", "Pair", "PairTally", "find_pair_files", "read_pairs"]

SPLIT = "train"
QUERIES = ("query", "anchor", "question")
POSITIVES = ("positive", "positives", "pos", "positive_passages", "answer")
NEGATIVES = ("negative", "negatives", "neg", "negative_passages")
_NUMBERED = re.compile(r"negative_?(\d+)")
_IDENTIFIER = re.compile(r"_?id|.*id|.*_ids", re.IGNORECASE)
_ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_NAMED = 5

PAIR_FILES = (
    "a .jsonl, .csv, .tsv (also with .gz) or .parquet file of query, positive and negatives, or a "
    "BEIR folder with qrels/train.tsv"
)
"""What pairs are read from, for messages and help."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One query, a text that answers it, and texts that do not."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass
class PairTally:
    """What reading one source left out.

    Attributes
    ----------
    skipped : bad records and judgements that were left out.
    first : what was wrong with the first of them.
    unread : the fields that no layout has, ids apart, in the order they were met.
    """

    skipped: int = 0
    first: str = ""
    unread: dict[str, None] = field(default_factory=dict)

    def note(self, problem: str, count: int = 1) -> None:
        """Count records that were left out."""
        self.first = self.first or problem
        self.skipped += count

    def sentences(self, path: Path) -> tuple[str, ...]:
        """Return what the user should know of it, a sentence each."""
        found = []
        if self.skipped:
            count = count_noun(self.skipped, "bad record was", "bad records were")
            found.append(f"{count} left out of {path}. The first: {self.first}")
        if self.unread:
            names = ", ".join(repr(name) for name in list(self.unread)[:_NAMED])
            more = f" and {len(self.unread) - _NAMED} more" if len(self.unread) > _NAMED else ""
            noun = "the field" if len(self.unread) == 1 else "the fields"
            found.append(f"{path}: {noun} {names}{more} have no effect on training.")
        return tuple(found)


def find_pair_files(path: Path) -> list[Path]:
    """Return the files that a source of pairs consists of.

    Raises
    ------
    SourceNotFoundError : there is nothing of this name, or the folder is no BEIR folder.
    UsageError : the file has another ending.
    """
    if path.is_dir():
        found = find_beir(path, SPLIT)
        return [found.corpus, found.queries, found.qrels]
    if not path.exists():
        raise SourceNotFoundError(f"{path}: there is no such file or folder; see data.path.")
    if _ending(path) not in _ENDINGS or path.name.lower().endswith(".parquet.gz"):
        raise UsageError(f"{path}: expected {PAIR_FILES}.")
    return [path]


def read_pairs(path: Path, tally: PairTally, skip_bad: bool | None) -> Iterator[Pair]:
    """Yield the pairs of a source, in its order.

    Parameters
    ----------
    tally : receives what is left out.
    skip_bad : True leaves bad records out. False raises and mentions ``--skip-bad``; None raises
        without it, for commands that lack the flag.

    Raises
    ------
    RecordError : a bad record; carries file and line.
    StorageError, FailureError : the source cannot be read.
    """
    folder = path.is_dir()
    found = _beir_pairs(path, tally, skip_bad) if folder else _file_pairs(path, tally)
    for pair in found:
        if isinstance(pair, Pair):
            yield pair
        elif skip_bad:
            tally.note(str(pair))
        else:
            advice = "" if skip_bad is None else ". Fix it, or pass --skip-bad to leave such out"
            raise RecordError(pair.source, pair.line, pair.problem + advice)


def _ending(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _file_pairs(path: Path, tally: PairTally) -> Iterator[Pair | RecordError]:
    for row in _rows(path):
        if isinstance(row, RecordError):
            yield row
            continue
        try:
            pairs = _to_pairs(row, tally)
        except RecordError as error:
            yield error
        else:
            yield from pairs


def _rows(path: Path) -> Iterator[Row | RecordError]:
    ending, source = _ending(path), str(path)
    if ending in (".csv", ".tsv"):
        yield from _table_rows(path, tabs=ending == ".tsv")
    elif ending == ".parquet":
        try:
            yield from parquet_rows(path, source, Fields(QUERIES, POSITIVES))
        except RecordError as error:
            if error.line is not None:
                raise
            raise RecordError(source, None, _missing_columns(error.problem)) from error
    else:
        yield from jsonl_rows(path, source)


def _table_rows(path: Path, *, tabs: bool) -> Iterator[Row | RecordError]:
    """Yield the rows of a table below its header; an empty cell is no value."""
    columns: list[str] = []
    source = str(path)
    for line, cells in table_cells(path, source, tabs=tabs):
        if isinstance(cells, RecordError):
            if not columns:
                raise cells  # without a header no later row can be read
            yield cells
        elif not columns:
            columns = [cell.strip() for cell in cells]
            listing = ", ".join(repr(name) for name in columns[:8])
            if not (set(columns) & set(QUERIES) and set(columns) & set(POSITIVES)):
                problem = _missing_columns(f"the columns are {listing}")
                raise RecordError(source, line, problem)
            if len(set(columns)) < len(columns):
                problem = f"two columns have one name: {listing}; expected distinct names"
                raise RecordError(source, line, problem)
        elif len(cells) != len(columns):
            found = count_noun(len(cells), "column")
            problem = f"the row has {found}; expected {len(columns)}, as in the header"
            yield RecordError(source, line, problem)
        else:
            yield _listed(Row(source, line, dict(zip(columns, cells, strict=True))))


def _listed(row: Row) -> Row | RecordError:
    """Return the row with its lists, which a table holds as JSON text."""
    values: dict[str, Any] = {}
    for name, cell in row.values.items():
        values[name] = cell
        if name in NEGATIVES or _NUMBERED.fullmatch(name):
            values[name] = cell if cell.strip() else None
        if name in (*POSITIVES, *NEGATIVES)[1:] and cell.lstrip().startswith("["):
            try:
                values[name] = json.loads(cell)
            except ValueError:
                return row.error(
                    f"{name!r} looks like a list and is no JSON: {cell[:40]!r}; expected a text, "
                    f'or a list such as ["one", "two"]'
                )
    return row._replace(values=values)


def _missing_columns(found: str) -> str:
    return (
        f"{found.partition(';')[0]}; the columns query and positive are needed (or "
        f"{' or '.join(QUERIES[1:])}, {' or '.join(POSITIVES[1:])}); negatives is optional"
    )


def _to_pairs(row: Row, tally: PairTally) -> list[Pair]:
    """Return a pair for each positive of the record, or raise RecordError with what is wrong."""
    query_name = _first(row, QUERIES)
    positive_name = _first(row, POSITIVES)
    query = _text(row, query_name, row.values[query_name])
    positives = _texts(row, positive_name)
    if not positives:
        raise row.error(f"{positive_name!r} is an empty list; expected one text or more")
    names = _negative_names(row)
    negatives = tuple(text for name in names for text in _texts(row, name))
    right = {text.strip() for text in positives}
    for index, text in enumerate(negatives):
        if text.strip() in right:
            raise row.error(f"negative {index + 1} equals the positive: {text.strip()[:60]!r}")
    for name in row.values.keys() - {query_name, positive_name, *names}:
        if not _IDENTIFIER.fullmatch(name) and row.values[name] is not None:
            tally.unread.setdefault(name)
    return [Pair(query, positive, negatives) for positive in positives]


def _first(row: Row, names: tuple[str, ...]) -> str:
    """Return the first of the names that the record has a value for."""
    for name in names:
        if row.values.get(name) is not None:
            return name
    keys = ", ".join(repr(key) for key in list(row.values)[:8]) or "nothing"
    raise row.error(
        f"the pair has no {names[0]!r}; it has {keys}. Expected one of {', '.join(names)}"
    )


def _negative_names(row: Row) -> list[str]:
    """Return the fields that hold negatives: one, or numbered ones."""
    plain = [name for name in NEGATIVES if row.values.get(name) is not None]
    numbered = [name for name in row.values if _NUMBERED.fullmatch(name)]
    if len(plain) + bool(numbered) > 1:
        first, second = [*plain, *numbered][:2]
        raise row.error(f"{first!r} and {second!r} are both given; expected one of them")
    if plain:
        return plain
    return sorted(
        (name for name in numbered if row.values[name] is not None),
        key=lambda name: int(_NUMBERED.fullmatch(name)[1]),  # type: ignore[index]
    )


def _texts(row: Row, name: str) -> tuple[str, ...]:
    """Return the text or texts of a field."""
    found = row.values[name]
    if isinstance(found, str | Mapping):
        return (_text(row, name, found),)
    if not isinstance(found, list):
        raise row.error(f"{name!r} is {type_name(found)}; expected a string or a list of strings")
    return tuple(_text(row, f"{name}[{index}]", text) for index, text in enumerate(found))


def _text(row: Row, name: str, value: object) -> str:
    """Return a text; that of an object is its title and its text."""
    if isinstance(value, Mapping):
        parts = [value.get("title"), value.get("text")]
        if not isinstance(parts[1], str) or not isinstance(parts[0] or "", str):
            keys = ", ".join(repr(key) for key in list(value)[:8]) or "nothing"
            raise row.error(f"{name!r} is an object of {keys}; expected one with a string 'text'")
        value = " ".join(str(part) for part in parts if part)
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string")
    if not value.strip():
        raise row.error(f"{name!r} is empty; expected text")
    problem = find_unwritable(value)
    if problem:
        raise row.error(f"{name!r} holds {problem}")
    return value


def _beir_pairs(
    folder: Path, tally: PairTally, skip_bad: bool | None
) -> Iterator[Pair | RecordError]:
    """Yield a pair for each document judged above 0; the others judged for its query are negatives.

    Only judged documents are kept in memory.
    """
    path = find_beir(folder, SPLIT).qrels
    read = read_qrels(path, skip_bad=skip_bad)
    for note in read.notes:
        tally.note(note)
    wanted = {judgement.doc_id for judgement in read.judgements}
    corpus = read_corpus(folder, skip_bad=bool(skip_bad))
    documents = {d.doc_id: d.content for d in corpus if d.doc_id in wanted}
    asked = read_queries(folder, skip_bad=bool(skip_bad))
    queries = {query.query_id: query.text for query in asked}
    for reader in (corpus, asked):
        if reader.skipped:
            tally.note(reader.first_skipped[0], reader.skipped)
    judged: list[Judgement] = []
    for judgement in read.judgements:
        problem = _unusable(judgement, queries, documents)
        if problem:
            yield RecordError(str(path), judgement.line, problem)
        else:
            judged.append(judgement)
    wrong: dict[str, list[Judgement]] = {}
    for judgement in judged:
        if judgement.score <= 0:
            wrong.setdefault(judgement.query_id, []).append(judgement)
    for judgement in judged:
        if judgement.score <= 0:
            continue
        positive = documents[judgement.doc_id]
        negatives = []
        for other in wrong.get(judgement.query_id, []):
            text = documents[other.doc_id]
            if text.strip() != positive.strip():
                negatives.append(text)
            else:
                problem = f"the negative {other.doc_id!r} equals the positive"
                yield RecordError(str(path), other.line, problem)
        yield Pair(queries[judgement.query_id], positive, tuple(negatives))


def _unusable(
    judgement: Judgement, queries: Mapping[str, str], documents: Mapping[str, str]
) -> str:
    """Return why a judgement makes no pair, "" if it does."""
    for kind, identifier, texts in (
        ("query", judgement.query_id, queries),
        ("document", judgement.doc_id, documents),
    ):
        if not texts.get(identifier, "").strip():
            state = "is empty" if identifier in texts else "does not exist"
            return f"the {kind} {identifier!r} {state}"
    return ""
