"""The output folder of a run: its checkpoints, and whether a run may continue in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from embedder.models.lora import copy_tensors
from embedder.models.names import MANIFEST_NAME
from embedder.models.saving import move_in
from embedder.training.config import TrainConfig
from retrieval.disk import replace_file, sync_path, write_synced
from retrieval.errors import ModelError, StorageError, UsageError
from retrieval.typed import find_differences, load_json, plain_data, read_dataclass, read_stored

FORMAT = 1


@dataclass(frozen=True)
class RunState:
    """What state.json holds.

    Attributes
    ----------
    step : how many steps are done.
    seconds : spent training so far.
    base : identity of the base's weights.
    best_step, best_score : where the best metric was highest so far.
    scores : the last ones on held-out data.
    threads : torch's threads on the CPU; with another number, sums differ in the last digits.
    """

    step: int
    seconds: float
    base: str
    best_step: int | None = None
    best_score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    threads: int = field(default_factory=torch.get_num_threads)
    format: int = FORMAT
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """Of checkpoints made before the step alone decided the learning rate; not read."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step stands."""
    return folder / f"step-{step:08d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, or None where there is none."""
    return max(folder.glob("step-????????"), default=None)


def write_checkpoint(
    folder: Path, state: RunState, weights: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> Path:
    """Write a checkpoint beside the others and rename it into place.

    Raises
    ------
    StorageError : the disk is full or not writable; earlier checkpoints are as they were.
    """
    target = checkpoint_path(folder, state.step)
    beside = folder / f".{target.name}.writing"
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_synced(beside / "weights.safetensors", safetensors.torch.save(dict(weights)))
        write_synced(beside / "optimiser.safetensors", safetensors.torch.save(_moments(optimiser)))
        write_synced(beside / "state.json", json.dumps(asdict(state), indent=1).encode())
        sync_path(beside)
        if target.exists():  # written by a run that was resumed from before this step
            shutil.rmtree(target)
        beside.rename(target)
        sync_path(folder)
    except OSError as error:
        raise StorageError(
            f"{target}: the checkpoint cannot be written ({error.strerror or error}). The last "
            f"good one is untouched: free some space and run again with --resume."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def prune_checkpoints(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the last ``keep`` checkpoints and the best one."""
    found = sorted(folder.glob("step-????????"))
    for path in found[:-keep]:
        if best_step is None or path != checkpoint_path(folder, best_step):
            shutil.rmtree(path, ignore_errors=True)


def read_checkpoint(
    path: Path, optimiser: torch.optim.Optimizer | None = None
) -> tuple[RunState, dict[str, Tensor]]:
    """Return a checkpoint's state and weights; put the moments into ``optimiser`` if given.

    Raises
    ------
    ModelError : the checkpoint is damaged, or of another version of millpond.
    """
    try:
        state = read_stored(RunState, load_json(path / "state.json"))
        weights = safetensors.torch.load((path / "weights.safetensors").read_bytes())
        if optimiser is not None:
            moments = safetensors.torch.load((path / "optimiser.safetensors").read_bytes())
            _restore_moments(optimiser, moments)
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{path}: the checkpoint cannot be read ({error}). Delete this folder to go on from "
            f"the one before it, or start anew in another folder."
        ) from error
    if state.format != FORMAT:
        raise ModelError(f"{path}: the checkpoint has format {state.format}; expected {FORMAT}.")
    return state, weights


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return every trained tensor by name, on the CPU."""
    return {
        name: parameter.detach().to("cpu").contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Put saved tensors into the trained parameters; raises as ``copy_tensors``."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    copy_tensors(trained, weights, source)


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value.detach().to("cpu").contiguous()
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore_moments(optimiser: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    """Put moments back; raises ValueError where one does not fit its parameter."""
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".", 1)
        if not 0 <= int(index) < len(parameters):
            raise ValueError(f"optimiser.safetensors has {key}, of {len(parameters)} parameters")
        expected = tuple(parameters[int(index)].shape)
        if value.dim() and tuple(value.shape) != expected:
            raise ValueError(f"{key} has the shape {tuple(value.shape)}; expected {expected}")
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


_MAY_CHANGE = ("checkpoint.", "log_every_steps", "evaluate.every_steps")
"""Keys that cannot change the weights."""


@dataclass(frozen=True)
class _SourceRecord:
    """What run.json holds of a source; see ``TrainingData.record``."""

    path: str
    sha256: Mapping[str, str]
    pairs: int
    negatives: int
    weight: float
    skipped: int = 0


@dataclass(frozen=True)
class _RunRecord:
    """What run.json holds."""

    config: Mapping[str, Any]
    data: tuple[_SourceRecord, ...]
    teacher: Mapping[str, Any] | None = None


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
        return (self.path / MANIFEST_NAME).is_file() and not self.checkpoints.is_dir()

    def check_free(self, resume: bool) -> None:
        """Refuse a path that is taken by something that this run may not touch.

        Raises
        ------
        UsageError : it is a file, or a folder that holds something and is not to be resumed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path}: this is a file; expected a folder.")
        held = self.path.is_dir() and any(self.path.iterdir())
        if held and not resume:
            raise UsageError(
                f"{self.path}: the folder is not empty. Add --resume to go on with the run it "
                f"holds, or name another folder."
            )
        if held and not self._run.is_file():
            raise UsageError(f"{self.path}: the folder holds no training run to resume.")

    def start(
        self,
        config: TrainConfig,
        data: Sequence[Mapping[str, Any]],
        teacher: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what this run is, or check that the folder holds the same run.

        Parameters
        ----------
        data : what identifies each source.
        teacher : what identifies the teacher, where there is one.

        Raises
        ------
        UsageError : the config or the data has changed; the message names what.
        StorageError : the folder cannot be written.
        """
        now = {"config": plain_data(config), "data": list(data), "teacher": teacher}
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
            before = read_stored(_RunRecord, load_json(self._run))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{self._run}: cannot be read ({error}). Start anew in another folder."
            ) from error
        pairs = zip(before.data, now["data"], strict=False)
        config, teacher = _with_new_options(before.config), before.teacher
        changed = [
            f"{key} was {old!r} and is {new!r}"
            for key, old, new in find_differences(config, now["config"])
            if not key.startswith(_MAY_CHANGE)
        ]
        for old, new in pairs:
            files = [name for name in new["sha256"] if old.sha256.get(name) != new["sha256"][name]]
            changed += [f"the content of {new['path']} ({name}) has changed" for name in files]
        if teacher and now["teacher"] and teacher.get("sha256") != now["teacher"]["sha256"]:
            changed.append(
                f"the teacher {now['teacher']['model']} is another model or gives other vectors"
            )
        if changed:
            raise UsageError(
                f"{self.path} holds another run: {'; '.join(changed)}. Set it back to resume, or "
                f"name another folder."
            )

    def clear_stage(self) -> Path:
        """Return an empty place where the model is saved first."""
        shutil.rmtree(self._stage, ignore_errors=True)
        return self._stage

    def publish(self) -> None:
        """Move the staged model's files in, millpond.json last, and drop the checkpoints.

        Raises
        ------
        StorageError : the folder cannot be written; the checkpoints are still there.
        """
        try:
            move_in(self._stage, self.path)
            self._stage.rmdir()
            shutil.rmtree(self.checkpoints)
        except OSError as error:
            raise StorageError(
                f"{self.path}: the model cannot be put in place ({error.strerror}). Run again "
                f"with --resume."
            ) from error


def _with_new_options(config: Any) -> Any:
    """Return the config of an earlier millpond, completed with defaults of options added since."""
    try:
        return plain_data(read_dataclass(TrainConfig, config))
    except UsageError:
        return config  # an option is gone or means something else; the comparison names it
