"""TREC runs and qrels: text files with a hit or a judgement a line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from benchmarks.scoring.metrics import Qrels, TrecRun
from retrieval.corpus.lines import open_bytes, read_lines
from retrieval.errors import RecordError
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
    StorageError, FailureError : the file cannot be read.
    """
    run: dict[str, dict[str, float]] = {}
    tags: dict[str, None] = {}
    with open_bytes(path, str(path)) as stream:
        for number, text, problem in read_lines(stream):
            row = text.split()
            if problem or len(row) not in (0, 6):
                problem = problem or f"{len(row)} columns; a run has 6"
                raise RecordError(str(path), number, problem)
            if not row:
                continue
            query, _, document, _, score, tag = row
            found = run.setdefault(query, {})
            if document in found:
                problem = f"query {query!r} has the document {document!r} a second time"
                raise RecordError(str(path), number, problem)
            found[document] = _number(path, number, score)
            tags[tag] = None
    return run, list(tags)


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(str(path), line, f"{text!r} is no finite number")
    return value
