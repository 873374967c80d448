"""mteb's tasks and benchmarks by name: which splits they have, and their data from mteb's cache."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.integrations.mteb_meta import import_mteb
from benchmarks.integrations.mteb_tasks import (
    TASK_TYPE_OF,
    describe_data,
    name_split,
    unknown_task,
)
from benchmarks.scoring.results import BEIR_PARTS
from benchmarks.tasks.task import Task
from embedder.environment import first_line, quiet_loggers
from retrieval.errors import DownloadError, UsageError, count_noun
from retrieval.protocols import Notify

MTEB_PREFIX = "mteb:"

_SOURCE = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<subsets>[^\[\]]+)\])?")
_EXPECTED = "mteb:TASK, mteb:TASK[SUBSET,SUBSET] or mteb:BENCHMARK"


@dataclass(frozen=True, kw_only=True)
class MtebTask(Task):
    """One split of a task of mteb.

    Attributes
    ----------
    path : "mteb:NAME" with the subsets where those are not all, which is no file.
    mteb : the ``mteb.AbsTask``.
    subsets : that are scored, mostly languages; the score is their mean.
    """

    mteb: Any
    subsets: Sequence[str]

    @property
    def identity(self) -> dict[str, Any]:
        """What stands for the data, as in results that were imported from mteb."""
        metadata = self.mteb.metadata
        return describe_data(metadata.name, metadata.revision, self.split, self.subsets)


@dataclass(frozen=True)
class MtebData:
    """The loaded data of a task.

    Attributes
    ----------
    random_state : of mteb's task after loading; each model starts from it.
    """

    task: MtebTask
    random_state: Any
    notes: Sequence[str] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers of documents and queries, or of rows, over all subsets."""
        splits = [self.split(subset) for subset in self.task.subsets]
        if self.task.task_type in ("retrieval", "reranking"):
            return {
                "documents": sum(len(one["corpus"]) for one in splits),
                "queries": sum(len(one["queries"]) for one in splits),
            }
        return {"rows": sum(len(one) for one in splits)}

    def split(self, subset: str) -> Any:
        """Return mteb's data of a subset."""
        data = self.task.mteb.dataset
        return data.get(subset, data)[self.task.split]


def find_mteb(source: str, split: str, notify: Notify) -> Iterator[Task]:
    """Yield a task for each split that ``source``, "mteb:NAME" or "mteb:NAME[SUBSET,...]", means.

    NAME is a task or a benchmark of mteb. A mean of several tasks is those tasks.

    Parameters
    ----------
    split : that split if a task is evaluated on it; where "test" is not, all of its splits.
    notify : receives one line for each task that is replaced by others or left out.

    Raises
    ------
    UnknownNameError : mteb has no such task or benchmark.
    UsageError : no such split or subset, or the task has no text.
    MissingDependencyError : mteb 2 is not installed.
    """
    found = _SOURCE.fullmatch(source.removeprefix(MTEB_PREFIX).strip())
    if found is None:
        raise UsageError(f"{source!r} arrived; expected {_EXPECTED}.")
    subsets = [one.strip() for one in found["subsets"].split(",")] if found["subsets"] else None
    with quiet_mteb():
        tasks = _open(found["name"].strip(), subsets)
    for task in tasks:
        problem = _find_problem(task, subsets)
        if not problem:
            yield from _splits(task, split, notify)
        elif len(tasks) > 1:
            notify(f"Left out: mteb:{task.metadata.name}. {problem}")
        else:
            raise UsageError(f"{source}: {problem}")


def _open(name: str, subsets: Sequence[str] | None) -> list[Any]:
    """Return mteb's task of this name, or the tasks of its benchmark."""
    mteb = import_mteb("mteb")
    name = name.rpartition("/")[2] if name.partition("/")[0] in BEIR_PARTS else name
    try:
        return [mteb.get_task(name, hf_subsets=subsets)]
    except ValueError:  # no such subset, which is told with those that there are
        return [mteb.get_task(name)]
    except KeyError:
        pass
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        raise unknown_task(name, *(one.name for one in mteb.get_benchmarks())) from None


def _find_problem(task: Any, subsets: Sequence[str] | None) -> str:
    """Return why a task cannot be scored here, "" where it can."""
    unknown = set(subsets or ()) - set(task.hf_subsets)
    if unknown:
        known = ", ".join(task.metadata.hf_subsets)
        return f"it has no subset {sorted(unknown)[0]!r}; expected some of {known}."
    if list(task.metadata.modalities) != ["text"]:
        return f"it is of {' and '.join(task.metadata.modalities)}; expected a task of texts."
    if task.metadata.type not in TASK_TYPE_OF:
        return f"its type is {task.metadata.type}; expected one of {', '.join(TASK_TYPE_OF)}."
    return ""


def _splits(task: Any, split: str, notify: Notify, whole: str = "") -> Iterator[MtebTask]:
    metadata = task.metadata
    parts = getattr(task, "tasks", None)
    if parts:
        notify(
            f"mteb:{metadata.name} is the mean of {count_noun(len(parts), 'task')}, which are "
            f"scored one by one."
        )
        folder = f"{metadata.name}/" if metadata.name in BEIR_PARTS else ""
        for part in parts:
            yield from _splits(part, split, notify, folder)
        return
    if metadata.superseded_by and not whole:
        notify(f"Warning: mteb has replaced {metadata.name} by {metadata.superseded_by}.")
    if metadata.is_beta:
        notify(f"Warning: mteb calls {metadata.name} beta; its data may change.")
    splits = list(task.eval_splits)
    if split not in splits and split != "test":
        raise UsageError(
            f"mteb:{metadata.name} has no split {split!r}; expected one of {', '.join(splits)}."
        )
    chosen = [split] if split in splits else splits
    all_of_them = list(task.hf_subsets) == list(metadata.hf_subsets)
    subsets = "" if all_of_them else f"[{','.join(task.hf_subsets)}]"
    prompt = task.metadata.prompt or task.abstask_prompt
    for one in chosen:
        yield MtebTask(
            name=whole + name_split(metadata.name, one, metadata.eval_splits),
            task_type=TASK_TYPE_OF[metadata.type],
            path=Path(f"{MTEB_PREFIX}{whole}{metadata.name}{subsets}"),
            split=one,
            instruction=str(prompt.get("query", "") if isinstance(prompt, dict) else prompt),
            mteb=task,
            subsets=tuple(task.hf_subsets),
        )


def load_mteb(task: MtebTask) -> MtebData:
    """Return a task with its data, from the cache of Hugging Face's datasets or its host.

    Raises
    ------
    DownloadError : they are neither there nor can they be fetched.
    """
    inner, metadata = task.mteb, task.mteb.metadata
    try:
        with quiet_mteb():
            inner.load_data()
            if task.task_type in ("retrieval", "reranking"):
                inner.convert_v1_dataset_format_to_v2(num_proc=None)
    except Exception as error:  # of datasets, of its host, of a task's own code
        raise DownloadError(
            f"The data of mteb:{metadata.name} ({metadata.dataset['path']}) could not be loaded: "
            f"{first_line(error).rstrip('.')}. On a machine that reaches their host, type "
            f"'python -c \"import mteb; mteb.get_task({metadata.name!r}).load_data()\"', and copy "
            f"the cache of Hugging Face's datasets from there (HF_HOME)."
        ) from error
    return MtebData(task, deepcopy((inner.rng_state, inner.np_rng)))


@contextmanager
def quiet_mteb() -> Iterator[None]:
    """Keep the log lines, warnings and progress bars of mteb and datasets from the user."""
    datasets = import_mteb("datasets")
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with quiet_loggers("mteb", "datasets"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say of a task is told by ``find_mteb``
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()
