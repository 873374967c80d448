"""A source of training pairs, or of texts alone, which a teacher makes lessons of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedder.training.data.layouts import (
    ENDINGS,
    POSITIVES,
    QUERIES,
    Pair,
    file_ending,
    file_pairs,
)
from retrieval import read_corpus, read_queries
from retrieval.corpus.lines import jsonl_rows
from retrieval.corpus.qrels import Judgement, find_beir, read_qrels
from retrieval.corpus.values import Row
from retrieval.errors import RecordError, SourceNotFoundError, UsageError, count_noun
from retrieval.texts import open_texts

_SPLIT = "train"
_NAMED = 5

PAIR_FILES = (
    "a .jsonl, .csv, .tsv (also with .gz) or .parquet file of query, positive and negatives, or a "
    "BEIR folder with qrels/train.tsv"
)
"""What pairs are read from, for messages and help."""


@dataclass
class PairTally:
    """What reading one source left out.

    Attributes
    ----------
    skipped : bad records and judgements that were left out.
    first : what was wrong with the first of them.
    empty : empty texts, of a source of texts alone.
    unread : the fields that no layout has, ids apart, in the order they were met.
    """

    skipped: int = 0
    first: str = ""
    empty: int = 0
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
        if self.empty:
            count = count_noun(self.empty, "empty text was", "empty texts were")
            found.append(f"{count} left out of {path}.")
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
        found = find_beir(path, _SPLIT)
        return [found.corpus, found.queries, found.qrels]
    if not path.exists():
        raise SourceNotFoundError(f"{path}: there is no such file or folder; see data.path.")
    if file_ending(path) not in ENDINGS or path.name.lower().endswith(".parquet.gz"):
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
    found = _beir_pairs(path, tally, skip_bad) if folder else file_pairs(path, tally.unread)
    for pair in found:
        if isinstance(pair, Pair):
            yield pair
        elif skip_bad:
            tally.note(str(pair))
        else:
            advice = "" if skip_bad is None else ". Fix it, or pass --skip-bad to leave it out"
            raise RecordError(pair.source, pair.line, pair.problem + advice)


def _beir_pairs(
    folder: Path, tally: PairTally, skip_bad: bool | None
) -> Iterator[Pair | RecordError]:
    """Yield a pair for each document judged above 0; the others judged for its query are negatives.

    Only judged documents are kept in memory.
    """
    path = find_beir(folder, _SPLIT).qrels
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


def holds_pairs(path: Path) -> bool:
    """Whether a source of lessons is a file of pairs, whose texts are all lessons."""
    if not path.is_file() or not path.name.lower().endswith((".jsonl", ".jsonl.gz", ".ndjson")):
        return False
    first = next(iter(jsonl_rows(path, str(path))), None)
    if not isinstance(first, Row):
        return False
    return any(first.values.get(name) is not None for name in QUERIES) and any(
        first.values.get(name) is not None for name in POSITIVES
    )


def find_text_files(path: Path) -> list[Path]:
    """Return the files that a source of texts, or of pairs, consists of.

    Raises
    ------
    SourceNotFoundError : there is nothing of this name.
    UsageError : the folder holds no file.
    """
    if not path.exists():
        raise SourceNotFoundError(f"{path}: there is no such file or folder; see data.path.")
    if path.is_file():
        return find_pair_files(path) if holds_pairs(path) else [path]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise UsageError(f"{path}: the folder holds no file; expected texts or a corpus.")
    return files


def read_texts(path: Path, tally: PairTally, skip_bad: bool | None) -> Iterator[Pair]:
    """Yield a pair without a query for each text of a .txt file or of any corpus.

    Empty texts are left out and counted.

    Raises
    ------
    RecordError : a bad record, unless ``skip_bad``.
    UsageError : every text is empty.
    EmptyCorpusError, StorageError, FailureError : the source cannot be read.
    """
    texts, found, empty = open_texts(str(path), skip_bad=bool(skip_bad)), 0, 0
    for document in texts:
        if not document.content.strip():
            empty += 1
            continue
        found += 1
        yield Pair("", document.content)
    if texts.skipped:
        tally.note(texts.first_skipped[0], texts.skipped)
    if empty and not found:
        raise UsageError(f"{path}: all {count_noun(empty, 'text')} are empty; expected text.")
    tally.empty += empty
