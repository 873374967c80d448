"""What all task types share: a task that was found, its data, and its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from retrieval import Vectors

Embed = Callable[[Sequence[str]], Vectors]
"""Texts to float32 (N, D) with the query prompt."""


@dataclass(frozen=True)
class Task:
    """A task that was found on disk.

    Attributes
    ----------
    name : of its file or folder; with "-SPLIT" for qrels other than test.
    task_type : one of ``benchmarks.scoring.results.TASK_TYPES``.
    path : its file or folder.
    split : of the qrels, where it is retrieval.
    instruction : that its publisher names for models that take one; "" for none.
    """

    name: str
    task_type: str
    path: Path
    split: str = "test"
    instruction: str = ""


@dataclass(frozen=True)
class Scores:
    """What a model scored; the fields are those of ``benchmarks.scoring.results.Result``."""

    main_metric: str
    metrics: Mapping[str, float]
    item_ids: Sequence[str]
    items: Mapping[str, Sequence[float]]
    notes: Sequence[str] = field(default=())
    draws: Mapping[str, Sequence[float]] = field(default_factory=dict)


class TaskData(Protocol):
    """A task's data, read and checked."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How much there is of what."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was left out, a sentence each."""
        ...


@dataclass(frozen=True)
class TextTaskType:
    """A task type whose tasks are scored from the vectors of texts.

    Attributes
    ----------
    files : the files that decide a task's scores, by role.
    load : reads and checks a task; the second argument is ``skip_bad``.
    score : scores what ``load`` returned.
    settings : the protocol, as a result's ``settings`` hold it.
    """

    files: Callable[[Task], Mapping[str, Path]]
    load: Callable[[Task, bool], TaskData]
    score: Callable[[Any, Embed], Scores]
    settings: Mapping[str, Any]
