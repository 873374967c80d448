"""Which task of mteb a name means, what mteb knows about it, and how its scores are read."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any

from benchmarks.integrations.mteb_meta import import_mteb
from benchmarks.scoring.results import Result
from retrieval.errors import UnknownNameError

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
            raise unknown_task(names[name])
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


def unknown_task(name: str, *more: str) -> UnknownNameError:
    """Return the error for a name that is no task of mteb, with those like it.

    Parameters
    ----------
    more : further names that would have been right.
    """
    found = find_mteb_task(name, {})
    names = [*(task.metadata.name for task in _tasks().values()), *more]
    near = [found.metadata.name] if found else difflib.get_close_matches(name, names, 5, 0.4)
    return UnknownNameError("task of mteb", name, near, "See mteb.get_tasks() for all of them.")


def describe_data(name: str, revision: str, split: str, subsets: Sequence[str]) -> dict[str, Any]:
    """Return what stands for the data of a split: equal where scores may be compared."""
    return {"task": name, "revision": revision, "split": split, "subsets": sorted(subsets)}


def name_split(name: str, split: str, splits: Sequence[str]) -> str:
    """Return how one split of a task is called: as the task where it is the only one."""
    return name if list(splits) == [split] else f"{name}-{split}"


def average_subsets(main: str, subsets: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean over subsets of each metric that all of them have, the main one first."""
    shared = set.intersection(*(numbers_of(one) for one in subsets)) - {main}
    scores = [one["main_score"] for one in subsets]
    means = {name: fmean(one[name] for one in subsets) for name in sorted(shared)}
    return {main: math.nan if None in scores else fmean(map(float, scores)), **means}


def numbers_of(scores: Mapping[str, Any]) -> set[str]:
    """Return the names of the metrics that are finite numbers."""
    return {
        name
        for name, score in scores.items()
        if isinstance(score, (int, float))
        and not isinstance(score, bool)
        and math.isfinite(score)
        and name != "main_score"
    }


def same_data(result: Result, task: Any, split: str) -> bool:
    """Whether it is mteb's data that were scored: its revision, or data of the sizes it names."""
    if "revision" in result.data:
        return bool(result.data["revision"] == task.metadata.revision)
    known = (task.metadata.descriptive_stats or {}).get(split) or {}
    data = result.data
    if result.task_type == "retrieval":
        pairs = [("documents", "num_documents"), ("queries", "num_queries")]
    else:
        pairs = [("test" if result.task_type == "classification" else "pairs", "num_samples")]
    return all(theirs in known and data.get(ours) == known[theirs] for ours, theirs in pairs)


def rename_cuts(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return scores under the names that mteb and model cards give cuts."""
    return {name.replace("@", "_at_"): score for name, score in metrics.items()}


@cache
def _tasks() -> dict[str, Any]:
    """Return all tasks by plain name, those too that mteb has replaced by newer ones."""
    found = import_mteb("mteb").get_tasks(exclude_superseded=False, exclude_private=False)
    return {_plain(task.metadata.name): task for task in found}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
