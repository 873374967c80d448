"""BEIR folders: corpus.jsonl, queries.jsonl and the judgements of qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.corpus.labelled import read_table
from retrieval.errors import SourceNotFoundError

__all__ = ["BeirFiles", "Judgement", "Qrels", "find_beir", "find_splits", "read_qrels"]

_COLUMNS = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class BeirFiles:
    """The three files of a BEIR folder and split."""

    corpus: Path
    queries: Path
    qrels: Path


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well a document answers a query; above 0 is relevant. ``line`` is its row's."""

    query_id: str
    doc_id: str
    score: int
    line: int


@dataclass(frozen=True)
class Qrels:
    """The judgements of one file, in its order.

    Attributes
    ----------
    notes : a sentence on the bad rows that were left out, if there were any.
    """

    judgements: Sequence[Judgement]
    notes: tuple[str, ...] = ()


def find_splits(folder: Path) -> list[str]:
    """Return the names of a BEIR folder's qrels, sorted."""
    return sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))


def find_beir(folder: Path, split: str, advice: str = "") -> BeirFiles:
    """Return where the files of a BEIR folder are; corpus and queries may end in .jsonl.gz.

    Parameters
    ----------
    advice : put behind the message of a missing split, such as which flag names another.

    Raises
    ------
    SourceNotFoundError : one of them is missing; the message names it, or the splits there are.
    """
    found = {}
    for stem in ("corpus", "queries"):
        names = (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz")
        path = next((path for path in names if path.is_file()), None)
        if path is None:
            raise SourceNotFoundError(
                f"{folder}: a BEIR folder holds {stem}.jsonl, which this one lacks."
            )
        found[stem] = path
    qrels = folder / "qrels" / f"{split}.tsv"
    if not qrels.is_file():
        splits = ", ".join(find_splits(folder)) or "none"
        raise SourceNotFoundError(
            f"{qrels}: there are no such qrels; the splits of this folder are: {splits}.{advice}"
        )
    return BeirFiles(found["corpus"], found["queries"], qrels)


def read_qrels(path: Path, *, skip_bad: bool | None = None) -> Qrels:
    """Return the judgements of a file: query-id, corpus-id and score, tab-separated.

    Parameters
    ----------
    skip_bad : as for ``retrieval.corpus.labelled.read_table``.

    Raises
    ------
    RecordError : a row without three columns, a score that is no whole number, or two scores
        for the same query and document.
    UsageError : no row is left.
    StorageError : the file cannot be read.
    """
    seen: dict[tuple[str, str], str] = {}

    def check(row: Sequence[str]) -> str:
        query_id, doc_id, score = row
        try:
            int(score)
        except ValueError:
            return f"the score is {score[:40]!r}; expected a whole number"
        if seen.setdefault((query_id, doc_id), score) != score:
            return f"query {query_id!r} and document {doc_id!r} have another score further up"
        return ""

    table = read_table(path, _COLUMNS, check, skip_bad=skip_bad, positional=True)
    judgements = [
        Judgement(query_id, doc_id, int(score), line)
        for (query_id, doc_id, score), line in zip(table.rows, table.lines, strict=True)
    ]
    return Qrels(judgements, table.notes)
