"""TREC runs and qrels: text files with a hit or a judgement a line."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.scoring.metrics import Qrels, TrecRun
from retrieval.errors import RecordError, StorageError
from retrieval.runs import RunIds


def format_run(run: TrecRun, tag: str, ids: RunIds) -> Iterator[str]:
    """Yield lines of query id, Q0, document id, rank from 1, score and tag, best first.

    Parameters
    ----------
    ids : writes ids; one for all files that belong together.
    """
    tag = "_".join(tag.split()) or "run"
    for query, scores in run.items():
        ranked = sorted(scores, key=lambda one: (scores[one], one), reverse=True)
        for rank, one in enumerate(ranked, start=1):
            yield f"{ids(query)} Q0 {ids(one)} {rank} {scores[one]!r} {tag}\n"


def format_qrels(qrels: Qrels, ids: RunIds) -> Iterator[str]:
    """Yield lines of query id, 0, document id and judgement; ids as in ``format_run``."""
    for query, judged in qrels.items():
        for one, relevance in judged.items():
            yield f"{ids(query)} 0 {ids(one)} {relevance}\n"


def read_run(path: Path) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return query id to document id to score, and the tags of a run file (.gz or plain).

    Raises
    ------
    RecordError : a line is not of six columns, its score is no finite number, or its document
        stands there before for the query.
    StorageError : the file cannot be read.
    """
    run: dict[str, dict[str, float]] = {}
    tags: dict[str, None] = {}
    for number, row in _read(path):
        if len(row) != 6:
            raise RecordError(str(path), number, f"{len(row)} columns; a run has 6")
        query, _, document, _, score, tag = row
        found = run.setdefault(query, {})
        if document in found:
            problem = f"query {query!r} has the document {document!r} a second time"
            raise RecordError(str(path), number, problem)
        found[document] = _number(path, number, score)
        tags[tag] = None
    return run, list(tags)


def _read(path: Path) -> Iterable[tuple[int, Sequence[str]]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line.split()
    except UnicodeDecodeError as error:
        raise RecordError(str(path), None, "not UTF-8 text") from error
    except (OSError, EOFError) as error:
        raise StorageError(f"{path}: cannot be read ({error}).") from error


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(str(path), line, f"{text!r} is no finite number")
    return value
