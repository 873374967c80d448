"""TREC runs and qrels: text files with a judgement or a hit a line."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.scoring.metrics import Qrels, TrecRun
from retrieval.errors import RecordError, StorageError, UsageError

__all__ = ["format_qrels", "format_run", "read_qrels_file", "read_run"]


def format_run(run: TrecRun, tag: str) -> Iterator[str]:
    """Yield lines of query id, Q0, document id, rank from 1, score and tag, best first.

    Raises
    ------
    UsageError : an id has a blank in it, which such a file cannot hold.
    """
    tag = "_".join(tag.split()) or "run"
    for query, scores in run.items():
        ranked = sorted(scores, key=lambda one: (scores[one], one), reverse=True)
        for rank, one in enumerate(ranked, start=1):
            yield f"{_word(query)} Q0 {_word(one)} {rank} {scores[one]!r} {tag}\n"


def format_qrels(qrels: Qrels) -> Iterator[str]:
    """Yield lines of query id, 0, document id and judgement; raises as ``format_run``."""
    for query, judged in qrels.items():
        for one, relevance in judged.items():
            yield f"{_word(query)} 0 {_word(one)} {relevance}\n"


def read_run(path: Path) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return query id to document id to score, and the tags of a run file (.gz or plain).

    Raises
    ------
    RecordError : a line is not of six columns, or its score is no finite number.
    StorageError : the file cannot be read.
    """
    run: dict[str, dict[str, float]] = {}
    tags: dict[str, None] = {}
    for number, row in _read(path):
        if len(row) != 6:
            raise RecordError(str(path), number, f"{len(row)} columns; a run has 6")
        query, _, document, _, score, tag = row
        run.setdefault(query, {})[document] = _number(path, number, score)
        tags[tag] = None
    return run, list(tags)


def read_qrels_file(path: Path) -> dict[str, dict[str, int]]:
    """Return query id to document id to judgement, from TREC's four columns or BEIR's three.

    Raises
    ------
    RecordError : a line has other columns, or its judgement is no whole number.
    StorageError : the file cannot be read.
    """
    found: dict[str, dict[str, int]] = {}
    for number, row in _read(path):
        if number == 1 and row and row[-1].lower() in ("score", "relevance", "rel"):
            continue
        if len(row) not in (3, 4):
            raise RecordError(str(path), number, f"{len(row)} columns; qrels have 4, BEIR's 3")
        judgement = _number(path, number, row[-1])
        if judgement != int(judgement):
            raise RecordError(str(path), number, f"the judgement is {row[-1]!r}, no whole number")
        found.setdefault(row[0], {})[row[-2]] = int(judgement)
    return found


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


def _word(name: str) -> str:
    if not name or len(name.split()) != 1 or name != name.strip():
        raise UsageError(
            f"The id {name!r} has a blank in it or is empty, which a TREC file cannot hold. "
            f"Export with --format mteb or csv instead."
        )
    return name
