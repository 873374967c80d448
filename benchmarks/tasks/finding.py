"""Finds the tasks that a name, a file or a folder stands for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.scoring.results import BEIR_PARTS
from benchmarks.tasks.classification import COLUMNS as LABEL_COLUMNS
from benchmarks.tasks.datasets import BEIR_DEV, BEIR_PREFIX, fetch_beir
from benchmarks.tasks.mteb import MTEB_PREFIX, find_mteb
from benchmarks.tasks.task import Task
from retrieval.corpus.labelled import STS_COLUMNS, read_header
from retrieval.corpus.qrels import find_splits
from retrieval.errors import SourceNotFoundError, UsageError
from retrieval.protocols import Notify, silent

_DEPTH = 2

_EXPECTED = (
    "a BEIR folder (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv), a .tsv file with the columns "
    "score, sentence1, sentence2 or label, text, a folder with train.tsv and test.tsv (label, "
    "text), a folder of such tasks, beir:NAME, or mteb:TASK"
)


def find_tasks(
    sources: Sequence[str],
    split: str,
    notify: Notify,
    fetch: Callable[[str, Notify], Path] = fetch_beir,
) -> list[Task]:
    """Return the tasks in the order of ``sources``, those of a folder by name.

    A source is ``beir:NAME``, ``mteb:NAME``, the file or folder of one task, or a folder of
    several, which are looked for two levels deep; what is no task is passed over with a message.
    The parts of a set in ``BEIR_PARTS`` are named SET/PART.

    Parameters
    ----------
    split : of the qrels of BEIR folders, and of mteb's tasks.
    notify : receives one line per thing passed over.
    fetch : returns the folder of a BEIR set by name.

    Raises
    ------
    SourceNotFoundError : there is no such file or folder, or it holds no task.
    UsageError : what was named is no task, or two tasks have one name.
    DownloadError, UnknownNameError : as ``fetch`` and ``find_mteb``.
    """
    found: dict[str, Task] = {}
    for source in sources:
        for task in _find(source, split, notify, fetch):
            other = found.setdefault(task.name, task)
            if other.path.resolve() != task.path.resolve():
                raise UsageError(
                    f"Two tasks are called {task.name!r}: {other.path} and {task.path}. Rename "
                    f"one, or score them with another --out."
                )
    return list(found.values())


def _find(
    source: str, split: str, notify: Notify, fetch: Callable[[str, Notify], Path]
) -> Iterator[Task]:
    if source.startswith(MTEB_PREFIX):
        yield from find_mteb(source, split, notify)
        return
    if source.startswith(BEIR_PREFIX):
        path = fetch(source.removeprefix(BEIR_PREFIX), notify)
        if source.removeprefix(BEIR_PREFIX) in BEIR_DEV and split == "test":
            notify(f"{source}: BEIR scores its dev split, so that is taken in place of test.")
            split = "dev"
    else:
        path = Path(source).expanduser()
        if not path.exists():
            raise SourceNotFoundError(
                f"{source}: there is no such file or folder. Expected {_EXPECTED}."
            )
    task_type = _recognise(path)
    if task_type is not None:
        yield _task(path, task_type, split)
        return
    if not path.is_dir():
        raise UsageError(f"{source}: this is no task. Expected {_EXPECTED}.")
    tasks = list(_expand(path, split, notify, _DEPTH))
    if not tasks:
        raise SourceNotFoundError(f"{source}: the folder holds no task. Expected {_EXPECTED}.")
    if path.resolve().name in BEIR_PARTS:
        tasks = [replace(one, name=f"{path.resolve().name}/{one.name}") for one in tasks]
    yield from tasks


def _expand(folder: Path, split: str, notify: Notify, depth: int) -> Iterator[Task]:
    """Yield the tasks in a folder and, ``depth`` - 1 levels down, in its folders."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        task_type = _recognise(path)
        if task_type == "retrieval" and split not in find_splits(path):
            notify(f"Passed over {path}: it has no qrels/{split}.tsv.")
        elif task_type is not None:
            yield _task(path, task_type, split)
        elif path.is_dir() and depth > 1:
            inside = list(_expand(path, split, silent, depth - 1))
            if not inside:
                notify(f"Passed over {path}: it holds no task.")
            yield from inside
        else:
            notify(f"Passed over {path}: it is no task.")


def _recognise(path: Path) -> str | None:
    """Return the type of the task that this file or folder is, None where it is none."""
    if path.is_dir():
        if any((path / f"corpus.jsonl{end}").is_file() for end in ("", ".gz")):
            return "retrieval"
        parts = [path / "train.tsv", path / "test.tsv"]
        if all(_has_columns(part, LABEL_COLUMNS) for part in parts):
            return "classification"
        return None
    if path.suffix.lower() != ".tsv":
        return None
    if _has_columns(path, STS_COLUMNS):
        return "sts"
    return "clustering" if _has_columns(path, LABEL_COLUMNS) else None


def _has_columns(path: Path, columns: Sequence[str]) -> bool:
    return path.is_file() and os.access(path, os.R_OK) and set(columns) <= set(read_header(path))


def _task(path: Path, task_type: str, split: str) -> Task:
    """Return the task, named after its file without the ending, with any split other than test."""
    name = path.resolve().name if path.is_dir() else path.stem
    suffix = f"-{split}" if task_type == "retrieval" and split != "test" else ""
    return Task(name + suffix, task_type, path, split)
