"""What a benchmark run is asked to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tasks.instructions import Instructions
from indexes import list_backends
from retrieval.errors import UnknownNameError, UsageError


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Which models are scored on which tasks, and how.

    Attributes
    ----------
    models : names as ``load_encoder`` takes them, or "bm25".
    tasks : "beir:NAME", "mteb:NAME", a task's file or folder, or a folder of several; see
        ``benchmarks.tasks.find_tasks``.
    out : the results folder.
    k : the cut of nDCG and of the first recall; mteb's tasks have their own.
    split : of the qrels of a BEIR folder, and of mteb's tasks.
    backend, factory : of the indexes; see ``indexes.Index.create``.
    skip_bad : leave bad records out and say so, instead of stopping at one.
    device : see ``Embedder.load``.
    speed : see ``Embedder.load``; models of sentence-transformers and bm25 know none.
    trust_remote_code : see ``load_encoder``.
    instructions : what goes into the query template of every model but bm25, task by task; None
        leaves the models their own query prompts.

    Raises
    ------
    UsageError : no model or no task, a model twice, k below 1, no such backend or speed, or
        ``out`` is a file.
    """

    models: Sequence[str]
    tasks: Sequence[str]
    out: Path
    k: int = 10
    split: str = "test"
    backend: str = "faiss"
    factory: str = "Flat"
    skip_bad: bool = False
    device: str | None = None
    speed: str = "exact"
    trust_remote_code: bool = False
    instructions: Instructions | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without reading anything."""
        for what, values in (("model", self.models), ("task", self.tasks)):
            if not values:
                raise UsageError(f"No {what} was named; expected one or more: --{what} NAME")
        twice = [name for name, count in Counter(self.models).items() if count > 1]
        if twice:
            raise UsageError(f"The model {twice[0]!r} is named twice; expected it once.")
        if self.k < 1:
            raise UsageError(f"k is {self.k}; it must be 1 or more.")
        if self.backend not in list_backends():
            raise UnknownNameError("index backend", self.backend, list_backends())
        if self.speed != "exact":  # torch is not imported for what is the default
            from embedder.environment import check_speed

            check_speed(self.speed)
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out} is a file; results need a folder. Name another --out.")

    @property
    def depth(self) -> int:
        """How many documents are retrieved for a query."""
        return max(self.k, 100)
