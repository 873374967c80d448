"""The output folder of a run: what it holds, and whether a run may go on in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedder.training.config import TrainConfig
from embedder.training.typed import plain_data, read_dataclass
from retrieval.disk import replace_file
from retrieval.errors import ModelError, StorageError, UsageError

__all__ = ["RunFolder", "find_differences"]

_MAY_CHANGE = ("checkpoint.", "log_every_steps", "evaluate.every_steps")
"""Keys that cannot change the weights."""
_MODEL_FILE = "millpond.json"


class RunFolder:
    """Where a run keeps its config, checkpoints and metrics, and leaves its model.

    Attributes
    ----------
    path : the folder itself, MODEL_DIR once training has finished.
    checkpoints : where checkpoints are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._run = path / "run.json"
        self._stage = path / ".model"

    @property
    def finished(self) -> bool:
        """Whether training has finished and the model is here."""
        return (self.path / _MODEL_FILE).is_file() and not self.checkpoints.is_dir()

    def check_free(self, resume: bool) -> None:
        """Refuse a path that is taken by something that this run may not touch.

        Raises
        ------
        UsageError : it is a file, or a folder that holds something and is not to be resumed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: this is a file; a folder is accepted.")
        held = self.path.is_dir() and any(self.path.iterdir())
        if held and not resume:
            raise UsageError(
                f"{self.path}: the folder is not empty. Add --resume to go on with the run it "
                f"holds, or name another folder."
            )
        if held and not self._run.is_file():
            raise UsageError(f"{self.path}: the folder holds no training run to resume.")

    def start(self, config: TrainConfig, data: Sequence[Mapping[str, Any]]) -> None:
        """Write down what this run is, or check that the folder's run is the same.

        Raises
        ------
        UsageError : the config or the data changed; names what did.
        StorageError : the folder cannot be written.
        """
        now = {"config": plain_data(config), "data": list(data)}
        if self._run.is_file():
            self._compare(now)
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be made ({error.strerror}).") from error
        replace_file(self._run, json.dumps(now, indent=1).encode())

    def _compare(self, now: Mapping[str, Any]) -> None:
        try:
            before = json.loads(self._run.read_text())
            pairs = list(zip(before["data"], now["data"], strict=False))
            config = _with_new_options(before["config"])
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{self._run}: cannot be read ({error}).") from error
        changed = [
            f"{key} was {old!r} and is {new!r}"
            for key, old, new in find_differences(config, now["config"])
            if not key.startswith(_MAY_CHANGE)
        ]
        for old, new in pairs:
            files = [
                name for name in new["sha256"] if old["sha256"].get(name) != new["sha256"][name]
            ]
            changed += [f"the content of {new['path']} ({name}) is another" for name in files]
        if changed:
            raise UsageError(
                f"{self.path} holds another run: {'; '.join(changed)}. Set it back to resume, or "
                f"name another folder."
            )

    def clear_stage(self) -> Path:
        """Return where the model is to be saved first, with nothing there."""
        shutil.rmtree(self._stage, ignore_errors=True)
        return self._stage

    def publish(self) -> None:
        """Move the staged model's files in, millpond.json last, and drop the checkpoints.

        Raises
        ------
        StorageError : the folder cannot be written; the checkpoints are still there.
        """
        entries = sorted(self._stage.iterdir(), key=lambda entry: entry.name == _MODEL_FILE)
        try:
            for entry in entries:
                target = self.path / entry.name
                if target.is_dir():
                    shutil.rmtree(target)
                entry.replace(target)
            self._stage.rmdir()
            shutil.rmtree(self.checkpoints)
        except OSError as error:
            raise StorageError(
                f"{self.path}: the model cannot be put in place ({error.strerror}). Run again "
                f"with --resume."
            ) from error


def _with_new_options(config: Any) -> Any:
    """Return a config of an earlier millpond with the options that have come since, at their
    defaults: they did not change what the run is."""
    try:
        return plain_data(read_dataclass(TrainConfig, config))
    except UsageError:
        return config  # an option is gone or means something else; the comparison names it


def find_differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted key, old and new value wherever two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            inner = f"{key}.{name}" if key else name
            yield from find_differences(old.get(name), new.get(name), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from find_differences(first, second, f"{key}[{index}]")
    elif old != new:
        yield key, old, new
