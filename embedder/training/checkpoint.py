"""A run's whole state in a folder that appears at once, or not at all.

``OUT/checkpoints/step-00000100/`` holds ``weights.safetensors`` (every trained tensor),
``optimiser.safetensors`` and ``state.json``. Random state is not among them: what is drawn at a
step depends on the seed and the step alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from embedder.lora import copy_tensors
from retrieval.disk import sync_path, write_synced
from retrieval.errors import ModelError, StorageError

__all__ = [
    "RunState",
    "checkpoint_path",
    "latest_checkpoint",
    "load_weights",
    "prune_checkpoints",
    "read_checkpoint",
    "trained_weights",
    "write_checkpoint",
]

FORMAT = 1


@dataclass(frozen=True)
class RunState:
    """What state.json holds.

    Attributes
    ----------
    step : how many steps are done.
    seconds : spent training so far.
    base : identity of the base's weights.
    schedule : the learning-rate schedule's own state.
    best_step, best_score : where the best metric was highest so far.
    scores : the last ones on held-out data.
    threads : of torch on the CPU; sums over another number of them differ in the last digits.
    """

    step: int
    seconds: float
    base: str
    schedule: Mapping[str, Any]
    best_step: int | None = None
    best_score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    threads: int = field(default_factory=torch.get_num_threads)
    format: int = FORMAT


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
        state = RunState(**json.loads((path / "state.json").read_text()))
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
        raise ModelError(f"{path}: the checkpoint has format {state.format}; {FORMAT} is read.")
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
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
