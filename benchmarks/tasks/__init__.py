"""Tasks by family: how each is found, read and scored."""

from pathlib import Path

from benchmarks.tasks.classification import CLASSIFICATION
from benchmarks.tasks.clustering import CLUSTERING
from benchmarks.tasks.finding import find_tasks
from benchmarks.tasks.retrieval import RetrievalData, load_retrieval, retrieval_files
from benchmarks.tasks.sts import STS
from benchmarks.tasks.task import Scores, Task, TaskData, TextFamily

__all__ = [
    "TEXT_FAMILIES",
    "RetrievalData",
    "Scores",
    "Task",
    "TaskData",
    "TextFamily",
    "find_tasks",
    "load_task",
    "task_files",
]

TEXT_FAMILIES: dict[str, TextFamily] = {
    "sts": STS,
    "classification": CLASSIFICATION,
    "clustering": CLUSTERING,
}


def task_files(task: Task) -> dict[str, Path]:
    """Return the files that decide a task's scores, by role."""
    if task.family == "retrieval":
        return dict(retrieval_files(task))
    return dict(TEXT_FAMILIES[task.family].files(task))


def load_task(task: Task, skip_bad: bool) -> TaskData:
    """Return a task's data, read and checked; raises as its family's ``load``."""
    if task.family == "retrieval":
        return load_retrieval(task, skip_bad)
    return TEXT_FAMILIES[task.family].load(task, skip_bad)
