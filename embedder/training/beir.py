"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval import read_corpus, read_queries
from retrieval.errors import RecordError, SourceNotFoundError, StorageError, UsageError

__all__ = ["Judgement", "beir_files", "beir_pairs", "read_qrels"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well a document answers a query; above 0 is relevant."""

    query_id: str
    doc_id: str
    score: int
    line: int


def beir_files(folder: Path, split: str) -> list[Path]:
    """Return the three files of a BEIR folder.

    Raises
    ------
    SourceNotFoundError : one of them is missing; the message names it, and the splits there are.
    """
    found = []
    for stem in ("corpus", "queries"):
        names = (folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz")
        path = next((path for path in names if path.is_file()), None)
        if path is None:
            raise SourceNotFoundError(
                f"{folder}: a BEIR folder holds {stem}.jsonl, which this one lacks."
            )
        found.append(path)
    return [*found, _qrels_path(folder, split)]


def _qrels_path(folder: Path, split: str) -> Path:
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        splits = ", ".join(sorted(p.stem for p in path.parent.glob("*.tsv"))) or "none"
        raise SourceNotFoundError(
            f"{path}: there are no such qrels; the splits of this folder are: {splits}."
        )
    return path


def read_qrels(folder: Path, split: str) -> list[Judgement]:
    """Return qrels/SPLIT.tsv: query-id, corpus-id, score, tab-separated under a header.

    Raises
    ------
    RecordError : a row without three columns, or a score that is no whole number.
    UsageError : no row at all.
    """
    path = _qrels_path(folder, split)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RecordError(str(path), None, f"not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
    found = []
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if not line.strip() or (number == 1 and cells[-1].strip().lower() == "score"):
            continue
        try:
            query_id, doc_id, score = cells
            found.append(Judgement(query_id, doc_id, int(score), number))
        except ValueError:
            raise RecordError(
                str(path), number, f"{line[:80]!r} is not query-id, corpus-id, whole-number score"
            ) from None
    if not found:
        raise UsageError(f"{path}: it holds no judgement; one or more is accepted.")
    return found


def beir_pairs(folder: Path, split: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield query, positive and negatives: a pair for each document judged above 0.

    Documents judged 0 or below for the same query are its negatives. Only judged documents are
    kept in memory.

    Raises
    ------
    RecordError : an id that corpus or queries lack, an empty text, or a negative that equals
        the positive; with the line of the qrels.
    """
    judged = read_qrels(folder, split)
    source = str(_qrels_path(folder, split))
    wanted = {judgement.doc_id for judgement in judged}
    documents = {d.doc_id: d.content for d in read_corpus(folder) if d.doc_id in wanted}
    queries = {query.query_id: query.text for query in read_queries(folder)}
    wrong: dict[str, list[Judgement]] = {}
    for judgement in judged:
        for kind, identifier, texts in (
            ("query", judgement.query_id, queries),
            ("document", judgement.doc_id, documents),
        ):
            if not texts.get(identifier, "").strip():
                state = "is empty" if identifier in texts else "does not exist"
                raise RecordError(source, judgement.line, f"the {kind} {identifier!r} {state}")
        if judgement.score <= 0:
            wrong.setdefault(judgement.query_id, []).append(judgement)
    for judgement in judged:
        if judgement.score <= 0:
            continue
        positive = documents[judgement.doc_id]
        negatives = []
        for other in wrong.get(judgement.query_id, []):
            if documents[other.doc_id].strip() == positive.strip():
                raise RecordError(
                    source, other.line, f"the negative {other.doc_id!r} equals the positive"
                )
            negatives.append(documents[other.doc_id])
        yield queries[judgement.query_id], positive, tuple(negatives)
