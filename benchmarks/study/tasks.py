"""The tasks of a study: found and checked before anything is trained, and cut where asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.study.config import CutConfig, StudyConfig
from benchmarks.tasks import RetrievalData, Task, TaskData, find_tasks, load_task
from benchmarks.tasks.classification import COLUMNS as LABEL_COLUMNS
from benchmarks.tasks.classification import ClassificationData, draw_examples
from benchmarks.tasks.clustering import ClusteringData
from benchmarks.tasks.mteb import MtebTask
from benchmarks.tasks.sts import StsData
from retrieval.corpus.labelled import STS_COLUMNS
from retrieval.errors import RecordError, SourceNotFoundError, StorageError, UsageError
from retrieval.protocols import Notify

_SUFFIX = "-cut"

T = TypeVar("T")


@dataclass(frozen=True)
class LoadedTask:
    """A task as the runs are scored on it."""

    task: Task
    data: TaskData


def load_tasks(config: StudyConfig, folder: Path, notify: Notify) -> list[LoadedTask]:
    """Return the study's tasks, read and checked; those that are cut are written to ``folder``.

    Raises
    ------
    UsageError, RecordError : a task or a record of it is not as it must be.
    DownloadError, StorageError : a task cannot be fetched, or a cut one not be written.
    """
    found = []
    with _study_advice():
        tasks = find_tasks(config.tasks, config.bench.split, notify)
    for task in tasks:
        if isinstance(task, MtebTask):
            raise UsageError(
                f"{task.path}: a study cuts and reads its tasks itself, so it takes files and BEIR "
                f"sets alone. Keep the models (keep_adapters = true) and type: millpond bench "
                f"--model STUDY/runs/RUN/model --task {task.path}"
            )
        with _study_advice():
            data = load_task(task, config.bench.skip_bad)
        cut = _cut(task, data, config.cut)
        if cut is None:
            found.append(LoadedTask(task, data))
            continue
        path = folder / (task.path.stem if task.path.is_file() else task.path.resolve().name)
        path = path.with_name(path.name + _SUFFIX + (".tsv" if task.path.is_file() else ""))
        try:
            _write(path, cut)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}).") from error
        smaller = replace(task, name=task.name + _SUFFIX, path=path)
        found.append(LoadedTask(smaller, load_task(smaller, skip_bad=False)))
    return found


_OPTIONS = {
    "pass --skip-bad": "set bench.skip_bad = true in the config",
    "Name one with --split": "Set bench.split in the config",
    ", or score them with another --out": "",
}
"""What errors on tasks advise for ``millpond bench``, and what a study has instead."""


@contextmanager
def _study_advice() -> Iterator[None]:
    """Let the errors of a task name what a study has."""
    try:
        yield
    except (RecordError, SourceNotFoundError, UsageError) as error:
        text = error.problem if isinstance(error, RecordError) else str(error)
        for theirs, ours in _OPTIONS.items():
            text = text.replace(theirs, ours)
        if isinstance(error, RecordError):
            raise RecordError(error.source, error.line, text) from error
        if type(error) in (SourceNotFoundError, UsageError):
            raise type(error)(text) from error
        raise


def embedded_texts(data: TaskData) -> list[str]:
    """Return the texts that a model embeds to be scored, each as often as it does."""
    if isinstance(data, StsData):
        return [*data.first, *data.second]
    if isinstance(data, ClusteringData):
        return list(data.rows.texts)
    if isinstance(data, ClassificationData):
        drawn = {place for draw in draw_examples(data.train.labels) for place in draw}
        return [data.train.texts[place] for place in sorted(drawn)] + list(data.test.texts)
    assert isinstance(data, RetrievalData)
    documents = [document.content for document in data.read_documents()]
    return [*documents, *(query.text for query in data.queries)]


def sample_texts(texts: Sequence[str], count: int) -> list[str]:
    """Return ``count`` texts, or all there are, the same ones for all models of a study."""
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    places = np.random.default_rng(0).permutation(len(distinct))[:count]
    return [distinct[place] for place in places.tolist()]


_Files = dict[str, Iterable[str]]
"""Path inside the task, "" for the task itself, to lines."""


def _cut(task: Task, data: TaskData, cut: CutConfig) -> _Files | None:
    """Return the files of the smaller task, None if nothing is left out."""
    rng = np.random.default_rng(cut.seed)
    if isinstance(data, StsData) and 0 < cut.sts_pairs < len(data.scores):
        rows = list(zip(map(str, data.scores), data.first, data.second, strict=True))
        return {"": _table(STS_COLUMNS, _draw(rows, cut.sts_pairs, rng))}
    if isinstance(data, ClusteringData) and 0 < cut.clustering_rows < len(data.rows.labels):
        labelled = list(zip(data.rows.labels, data.rows.texts, strict=True))
        return {"": _table(LABEL_COLUMNS, _draw(labelled, cut.clustering_rows, rng))}
    if isinstance(data, ClassificationData) and 0 < cut.test_rows < len(data.test.labels):
        train = list(zip(data.train.labels, data.train.texts, strict=True))
        test = list(zip(data.test.labels, data.test.texts, strict=True))
        return {
            "train.tsv": _table(LABEL_COLUMNS, train),
            "test.tsv": _table(LABEL_COLUMNS, _draw(test, cut.test_rows, rng)),
        }
    if isinstance(data, RetrievalData):
        return _cut_retrieval(task, data, cut, rng)
    return None


def _cut_retrieval(
    task: Task, data: RetrievalData, cut: CutConfig, rng: np.random.Generator
) -> _Files | None:
    """Return a smaller corpus with all that is relevant for the queries that are kept."""
    few_queries = 0 < cut.queries < len(data.queries)
    if not few_queries and not 0 < cut.documents < data.documents:
        return None
    queries = _draw(data.queries, cut.queries, rng) if few_queries else list(data.queries)
    relevant = {
        doc_id
        for query in queries
        for doc_id, score in data.qrels[query.query_id].items()
        if score > 0
    }
    ids = [document.doc_id for document in data.read_documents()]
    others = [doc_id for doc_id in ids if doc_id not in relevant]
    room = max(0, cut.documents - len(relevant)) if cut.documents else len(others)
    kept = relevant | set(_draw(others, room, rng))
    documents = (
        json.dumps({"_id": one.doc_id, "title": one.title, "text": one.text}, ensure_ascii=False)
        for one in data.read_documents()
        if one.doc_id in kept
    )
    judgements = [
        (query.query_id, doc_id, str(score))
        for query in queries
        for doc_id, score in data.qrels[query.query_id].items()
        if doc_id in kept
    ]
    return {
        "corpus.jsonl": documents,
        "queries.jsonl": [
            json.dumps({"_id": one.query_id, "text": one.text}, ensure_ascii=False)
            for one in queries
        ],
        f"qrels/{task.split}.tsv": _table(("query-id", "corpus-id", "score"), judgements),
    }


def _draw(rows: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """Return ``count`` random rows, or all, in their order."""
    places = np.sort(rng.permutation(len(rows))[:count])
    return [rows[place] for place in places.tolist()]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["\t".join(columns), *("\t".join(row) for row in rows)]


def _write(path: Path, files: _Files) -> None:
    """Write a task whole or not at all; what was there before is replaced."""
    beside = path.with_name(f".{path.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    for name, lines in files.items():
        part = beside / name if name else beside
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{line}\n" for line in lines)
    if path.is_dir():
        shutil.rmtree(path)
    beside.replace(path)
