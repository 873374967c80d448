"""BEIR folders: corpus.jsonl, queries.jsonl and the judgements of qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retrieval.corpus.labelled import match_columns, read_table
from retrieval.corpus.lines import open_bytes, read_lines
from retrieval.errors import RecordError, SourceNotFoundError, UsageError, count_noun

_COLUMNS = ("query-id", "corpus-id", "score")
_TREC_COLUMNS = ("query-id", "0", "corpus-id", "score")
_NAMES = (
    {"queryid", "qid", "query", "topic", "topicid"},
    {"corpusid", "docid", "documentid", "did", "doc", "document", "pid", "passageid", "docno"},
    {"score", "relevance", "rel", "relevancy", "label", "grade", "judgement", "judgment"},
)
"""What the columns are called in a header, as ``plain_name`` gives it."""
_NAMED = 5


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


def find_beir_file(folder: Path, stem: str) -> Path | None:
    """Return the folder's .jsonl or .jsonl.gz file of that name, None where it has neither."""
    candidates = (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz")
    return next((path for path in candidates if path.is_file()), None)


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
        path = find_beir_file(folder, stem)
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
    """Return the judgements of a file, BEIR's or TREC's; .gz or plain.

    BEIR's columns are query-id, corpus-id and score, separated by tabs, or by blanks where the
    first line has no tab. A first line that names the columns may name them in any order, with
    others between them; one whose third cell is a number is a judgement. TREC's are query id, 0,
    document id and judgement, without names.

    Parameters
    ----------
    skip_bad : as for ``retrieval.corpus.labelled.read_table``.

    Raises
    ------
    RecordError : a row without these columns, a score that is no whole number, two scores for the
        same query and document, or a first line that is neither a judgement nor a known header.
    UsageError : no row is left.
    StorageError : the file cannot be read.
    """
    seen: dict[tuple[str, str], str] = {}
    is_trec, blanks = _recognise(path)

    def check(row: Sequence[str]) -> str:
        query_id, doc_id, score = row[0], row[-2], row[-1]
        if not _is_whole(score):
            return f"the score is {score[:40]!r}; expected a whole number"
        if seen.setdefault((query_id, doc_id), score) != score:
            return f"query {query_id!r} and document {doc_id!r} have another score further up"
        return ""

    table = read_table(
        path,
        _TREC_COLUMNS if is_trec else _COLUMNS,
        check,
        skip_bad=skip_bad,
        find=_find_nothing if is_trec else partial(_find, str(path)),
        blanks=blanks,
    )
    judgements = [
        Judgement(row[0], row[-2], int(row[-1]), line)
        for row, line in zip(table.rows, table.lines, strict=True)
    ]
    return Qrels(judgements, table.notes)


def _recognise(path: Path) -> tuple[bool, bool]:
    """Return whether the first line is of TREC's columns, and whether blanks separate them."""
    with open_bytes(path, str(path)) as stream:
        line = next(read_lines(stream), None)
    text = "" if line is None else line.text.rstrip("\r\n")
    words = text.split()
    blanks = "\t" not in text and len(words) in (3, 4)
    cells = words if blanks else text.split("\t")
    return len(cells) == len(_TREC_COLUMNS) and _is_whole(cells[-1]), blanks


def _find_nothing(number: int, cells: Sequence[str]) -> None:
    """Say that the first line names no columns."""


def match_judgements(
    path: Path,
    judged: Sequence[Judgement],
    queries: Collection[str],
    documents: Collection[str],
    skip_bad: bool | None = None,
) -> tuple[list[Judgement], list[str]]:
    """Return the judgements of queries that are there, and a note on the documents that are not.

    A judged document that the corpus lacks is one that cannot be found; it counts as such, as in
    beir and trec_eval. A query that is not there cannot be asked, so beir stops at it.

    Parameters
    ----------
    path : of the judgements, for messages.
    queries, documents : the ids that there are.
    skip_bad : True leaves judgements of missing queries out, with a note; else as ``read_qrels``.

    Raises
    ------
    RecordError : a query is missing, unless ``skip_bad``.
    UsageError : every document is missing.
    """
    notes = []
    unknown = [row for row in judged if row.query_id not in queries]
    if unknown:
        listing = _listing([(f"query {row.query_id!r}", row.line) for row in unknown])
        if not skip_bad:
            rows = count_noun(len(unknown), "row names", "rows name")
            advice = ", or pass --skip-bad to leave such rows out" if skip_bad is False else ""
            problem = f"{rows} a query that does not exist: {listing}. Fix the file{advice}"
            raise RecordError(str(path), unknown[0].line, problem)
        rows = count_noun(len(unknown), "judgement was", "judgements were")
        notes.append(f"{rows} left out, of a query that does not exist: {listing}.")
    kept = [row for row in judged if row.query_id in queries]
    lacking: dict[str, int] = {}
    for row in kept:
        if row.doc_id not in documents:
            lacking.setdefault(row.doc_id, row.line)
    if kept and all(row.doc_id in lacking for row in kept):
        raise UsageError(
            f"{path}: none of the judged documents is in the corpus (the first: "
            f"{kept[0].doc_id!r}). Check that corpus and judgements belong together."
        )
    if lacking:
        documents_are = count_noun(len(lacking), "judged document is", "judged documents are")
        listing = _listing([(repr(doc_id), line) for doc_id, line in lacking.items()])
        counted = "counts" if len(lacking) == 1 else "count"
        notes.append(f"{documents_are} not in the corpus and {counted} as not found: {listing}.")
    return kept, notes


def _listing(found: Sequence[tuple[str, int]]) -> str:
    """Return the first of the things with their lines."""
    named = ", ".join(f"{what} (line {line})" for what, line in found[:_NAMED])
    return named + (", ..." if len(found) > _NAMED else "")


def _find(source: str, number: int, cells: Sequence[str]) -> list[int] | None:
    """Return the places of the columns that the first line names, None if it is a judgement."""
    places = match_columns(cells, _NAMES)
    found = [place for place in places if place is not None]
    if len(found) == len(places):
        return found
    if len(cells) != len(_COLUMNS) or _is_whole(cells[-1]):
        return None  # a judgement, or a row of a wrong length, which is told as such
    shown = ", ".join(repr(cell[:40]) for cell in cells)
    raise RecordError(
        source,
        number,
        f"the first line is {shown}: no judgement, since its score is no whole number, and no "
        f"header that is known. Expected {', '.join(_COLUMNS)}, separated by tabs",
    )


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
