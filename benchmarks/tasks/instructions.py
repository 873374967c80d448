"""Which instruction goes with a task: the published ones, or those of a TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scoring.results import TASK_TYPES
from benchmarks.tasks.task import Task
from retrieval.errors import UnknownNameError, UsageError
from retrieval.typed import read_toml

PUBLISHED = "published"
"""What names the table that comes with millpond."""

_TABLE = Path(__file__).with_name("instructions.toml")


@dataclass(frozen=True)
class Instructions:
    """An instruction a task; "" leaves a model's own query prompt.

    Attributes
    ----------
    types : by task type.
    tasks : by task name in lower case; these go first.
    published : whether that of a task's publisher goes before that of its type.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    published: bool = False

    @classmethod
    def of_all(cls, instruction: str) -> Instructions:
        """Return the same instruction for every task."""
        return cls(dict.fromkeys(TASK_TYPES, instruction))

    def find(self, task: Task) -> str | None:
        """Return the instruction of a task, None where there is none for it.

        A name may carry the split of its qrels: "nfcorpus-dev" has that of "nfcorpus".
        """
        name = task.name.lower()
        for known in (name, name.removesuffix(f"-{task.split.lower()}")):
            if known in self.tasks:
                return self.tasks[known]
        if self.published and task.instruction:
            return task.instruction
        return self.types.get(task.task_type)

    def check(self, tasks: Sequence[Task]) -> None:
        """Raise UsageError where a task has no instruction."""
        for task in tasks:
            if self.find(task) is None:
                raise UsageError(
                    f"There is no instruction for the {task.task_type} task {task.name!r}. Add it "
                    f'to the file: under [tasks], {task.name} = "...", or under [types], '
                    f'{task.task_type} = "..."; "" leaves the model\'s own query prompt.'
                )


def read_instructions(source: str) -> Instructions:
    """Return the instructions of a TOML file, or the published ones.

    The file has a table ``[types]`` by task type and a table ``[tasks]`` by name, each to a text.

    Parameters
    ----------
    source : a path, or "published".

    Raises
    ------
    SourceNotFoundError, StorageError : there is no such file, or it cannot be read.
    UnknownNameError : it has another table, or a task type that does not exist.
    UsageError : it is not TOML, or a value is no text.
    """
    path = _TABLE if source == PUBLISHED else Path(source).expanduser()
    data = read_toml(
        path,
        f"Name a TOML file with instructions, or {PUBLISHED!r} for those that come with millpond.",
    )
    for name in data:
        if name not in ("types", "tasks"):
            raise UnknownNameError(f"table of {source}", name, ("types", "tasks"))
    types, tasks = (_read_table(source, name, data.get(name, {})) for name in ("types", "tasks"))
    for name in types:
        if name not in TASK_TYPES:
            raise UnknownNameError(f"task type of {source}", name, TASK_TYPES)
    return Instructions(
        types, {name.lower(): said for name, said in tasks.items()}, source == PUBLISHED
    )


def _read_table(source: str, name: str, table: Any) -> dict[str, str]:
    if not isinstance(table, dict):
        raise UsageError(f"{source}: {name} is {table!r}; expected a table [{name}].")
    for key, said in table.items():
        if not isinstance(said, str):
            raise UsageError(f"{source}: [{name}] {key} is {said!r}; expected a text.")
    return table
