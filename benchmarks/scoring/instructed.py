"""The instructions of a benchmark run: which model gets which query prompt on which task."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.scoring.bm25 import BM25_NAME
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.models import Bm25Model, LoadedModel, check_model_name, instruct_model
from benchmarks.tasks import Task
from embedder.models.names import write_value
from retrieval import Fingerprint
from retrieval.protocols import Notify

_INSTRUCTED = " with instructions"


def label_model(config: BenchConfig, model: str) -> str:
    """Return how results name a model: with instructions it is another than without."""
    instructed = config.instructions is not None and model != BM25_NAME
    return f"{model}{_INSTRUCTED}" if instructed else model


def unlabel_model(config: BenchConfig, label: str) -> str:
    """Return the name that was typed, from how results name the model."""
    return label if config.instructions is None else label.removesuffix(_INSTRUCTED)


class Instructed:
    """Fills the query templates of models, each once for an instruction.

    Parameters
    ----------
    notify : receives one line for each prompt that is filled.
    """

    def __init__(self, config: BenchConfig, notify: Notify) -> None:
        self._config = config
        self._notify = notify
        self._prompts: dict[tuple[str, str], str] = {}

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that each task has an instruction and each model a template for it.

        Raises
        ------
        UsageError : one of them has not.
        MillpondError : a model's name or files cannot be read.
        """
        if self._config.instructions is None:
            return
        self._config.instructions.check(tasks)
        for model in self._config.models:
            if model != BM25_NAME:
                check_model_name(model)
            for task in tasks:
                self._find_prompt(model, task)

    def find(self, model: str, task: Task) -> str | None:
        """Return what goes into a model's query template; None for its own query prompt."""
        if self._config.instructions is None or model == BM25_NAME:
            return None
        return self._config.instructions.find(task) or None

    def fingerprint(self, model: str, made: Fingerprint, task: Task) -> Fingerprint:
        """Return the fingerprint of a model on a task, given its own."""
        prompt = self._find_prompt(model, task)
        if prompt is None:
            return made
        shown = prompt.lower() if made.settings.get("lowercase") else prompt
        return Fingerprint(
            f"{model},query_prompt={write_value(prompt)}", {**made.settings, "query_prompt": shown}
        )

    def instruct(
        self, model: str, loaded: LoadedModel | Bm25Model, task: Task
    ) -> LoadedModel | Bm25Model:
        """Return a loaded model with the query prompt of a task."""
        prompt = self._find_prompt(model, task)
        if prompt is None or isinstance(loaded, Bm25Model):
            return loaded
        return instruct_model(loaded, model, prompt)

    def _find_prompt(self, model: str, task: Task) -> str | None:
        instruction = self.find(model, task)
        if instruction is None:
            return None
        if (model, instruction) not in self._prompts:
            from embedder.instructions import fill_instruction  # imports torch

            filled = fill_instruction(model, instruction, self._notify)
            self._prompts[model, instruction] = filled
        return self._prompts[model, instruction]
