"""Tasks: how they are found, read and scored."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.tasks.classification import CLASSIFICATION
from benchmarks.tasks.clustering import CLUSTERING
from benchmarks.tasks.finding import find_tasks
from benchmarks.tasks.mteb import MtebTask, load_mteb
from benchmarks.tasks.retrieval import RetrievalData, load_retrieval, retrieval_files
from benchmarks.tasks.sts import STS
from benchmarks.tasks.task import Scores, Task, TaskData, TextTaskType

__all__ = [
    "TEXT_TASK_TYPES",
    "RetrievalData",
    "Scores",
    "Task",
    "TaskData",
    "TextTaskType",
    "find_tasks",
    "identify_task",
    "load_task",
]

TEXT_TASK_TYPES: dict[str, TextTaskType] = {
    "sts": STS,
    "classification": CLASSIFICATION,
    "clustering": CLUSTERING,
}


def identify_task(
    task: Task, hash_files: Callable[[Mapping[str, Path]], Mapping[str, str]]
) -> Mapping[str, Any]:
    """Return what stands for a task's data: the hash of each file by role, or what mteb names."""
    if isinstance(task, MtebTask):
        return task.identity
    if task.task_type == "retrieval":
        return hash_files(retrieval_files(task))
    return hash_files(TEXT_TASK_TYPES[task.task_type].files(task))


def load_task(task: Task, skip_bad: bool) -> TaskData:
    """Return a task's data, read and checked; raises as the ``load`` of its type."""
    if isinstance(task, MtebTask):
        return load_mteb(task)
    if task.task_type == "retrieval":
        return load_retrieval(task, skip_bad)
    return TEXT_TASK_TYPES[task.task_type].load(task, skip_bad)
