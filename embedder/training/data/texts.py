"""Texts alone as training data: each is a pair without a query, a lesson of a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedder.training.data.layouts import POSITIVES, QUERIES, Pair
from embedder.training.data.reading import PairTally, find_pair_files
from retrieval.corpus.formats import jsonl_rows
from retrieval.corpus.records import Row, find_unwritable
from retrieval.errors import RecordError, SourceNotFoundError, UsageError
from retrieval.plurals import count_noun
from retrieval.texts import Texts

__all__ = ["find_text_files", "holds_pairs", "read_texts"]


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
    texts, found, empty = Texts(str(path), skip_bad=bool(skip_bad)), 0, 0
    for identifier, text in texts:
        if not text.strip():
            empty += 1
            continue
        problem = find_unwritable(text)
        if problem:
            if not skip_bad:
                raise RecordError(str(path), None, f"the text {identifier!r} holds {problem}")
            tally.note(f"{path}: the text {identifier!r} holds {problem}")
            continue
        found += 1
        yield Pair("", text)
    if texts.skipped:
        tally.note(texts.first_skipped[0], texts.skipped)
    if empty and not found:
        raise UsageError(f"{path}: all {count_noun(empty, 'text')} are empty; expected text.")
    tally.empty += empty
