"""Tasks of four types: how they are found, read and scored."""

from pathlib import Path

from benchmarks.tasks.classification import CLASSIFICATION
from benchmarks.tasks.clustering import CLUSTERING
from benchmarks.tasks.finding import find_tasks
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
    "load_task",
    "task_files",
]

TEXT_TASK_TYPES: dict[str, TextTaskType] = {
    "sts": STS,
    "classification": CLASSIFICATION,
    "clustering": CLUSTERING,
}


def task_files(task: Task) -> dict[str, Path]:
    """Return the files that decide a task's scores, by role."""
    if task.task_type == "retrieval":
        return dict(retrieval_files(task))
    return dict(TEXT_TASK_TYPES[task.task_type].files(task))


def load_task(task: Task, skip_bad: bool) -> TaskData:
    """Return a task's data, read and checked; raises as the ``load`` of its type."""
    if task.task_type == "retrieval":
        return load_retrieval(task, skip_bad)
    return TEXT_TASK_TYPES[task.task_type].load(task, skip_bad)
