"""Which task of mteb a task of ours is, and what mteb knows about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from benchmarks.integrations.mteb_meta import import_mteb
from benchmarks.scoring.results import Result
from retrieval.errors import UnknownNameError

__all__ = ["TASK_TYPE_OF", "find_mteb_task", "get_mteb_task", "same_data"]

TASK_TYPE_OF = {
    "Retrieval": "retrieval",
    "InstructionRetrieval": "retrieval",
    "Reranking": "reranking",
    "InstructionReranking": "reranking",
    "STS": "sts",
    "Classification": "classification",
    "MultilabelClassification": "multilabel_classification",
    "PairClassification": "pair_classification",
    "Clustering": "clustering",
    "BitextMining": "bitext_mining",
    "Summarization": "summarization",
}
"""mteb's types to ours; any other is "other"."""

_OTHER_NAMES = {
    "dbpediaentity": "DBPedia",
    "fiqa": "FiQA2018",
    "quora": "QuoraRetrieval",
    "webistouche2020": "Touche2020",
    "cqadupstack": "CQADupstackRetrieval",
    "stsb": "STSBenchmark",
    "stsbtest": "STSBenchmark",
    "sickrtest": "SICK-R",
}
"""Plain names of BEIR sets and files that mteb calls otherwise."""

_ENDINGS = ("", "retrieval", "classification", "clustering")


def find_mteb_task(name: str, names: Mapping[str, str]) -> Any | None:
    """Return mteb's task of a name of ours, None where mteb has none by it.

    Parameters
    ----------
    names : ours to mteb's, which go first.

    Raises
    ------
    UnknownNameError : a name in ``names`` is none of mteb's.
    MissingDependencyError : mteb 2 is not installed.
    """
    tasks = _tasks()
    if name in names:
        found = tasks.get(_plain(names[name]))
        if found is None:
            raise UnknownNameError("task of mteb", names[name], [])
        return found
    plain = _plain(name)
    if plain in _OTHER_NAMES:
        return tasks[_plain(_OTHER_NAMES[plain])]
    for ending in _ENDINGS:
        if plain + ending in tasks:
            return tasks[plain + ending]
    base, dash, split = name.rpartition("-")
    found = find_mteb_task(base, {}) if dash else None
    return found if found is not None and split in found.metadata.eval_splits else None


def get_mteb_task(name: str) -> Any | None:
    """Return mteb's task by mteb's own name, None where this mteb has none."""
    found = _tasks().get(_plain(name))
    return found if found is not None and found.metadata.name == name else None


def same_data(result: Result, task: Any, split: str) -> bool:
    """Whether the sizes of what was scored are those that mteb's statistics of a task name."""
    known = (task.metadata.descriptive_stats or {}).get(split) or {}
    data = result.data
    if result.task_type == "retrieval":
        pairs = [("documents", "num_documents"), ("queries", "num_queries")]
    else:
        pairs = [("test" if result.task_type == "classification" else "pairs", "num_samples")]
    return all(theirs in known and data.get(ours) == known[theirs] for ours, theirs in pairs)


@cache
def _tasks() -> dict[str, Any]:
    """Return all tasks by plain name, those too that mteb has replaced by newer ones."""
    found = import_mteb("mteb").get_tasks(exclude_superseded=False, exclude_private=False)
    return {_plain(task.metadata.name): task for task in found}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
