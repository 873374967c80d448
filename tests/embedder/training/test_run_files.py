"""Checkpoints and the record of a run in every state of damage: read, or refused in one line."""

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from embedder.training.checkpoint import (
    RunFolder,
    RunState,
    checkpoint_path,
    read_checkpoint,
    restore_schedule,
    trained_weights,
    write_checkpoint,
)
from embedder.training.config import OptimiserConfig
from embedder.training.log import MetricsLog
from embedder.training.setup import build_schedule, saved_scaling
from retrieval.errors import MillpondError
from tests.stored_files import survive


@pytest.fixture
def trained():
    """A module and an optimiser after one step, with its schedule."""
    module = nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    schedule = build_schedule(optimiser, OptimiserConfig(), 4)
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    schedule.step()
    return module, optimiser, schedule


def test_the_state_of_a_checkpoint_is_read_or_refused(trained, tmp_path):
    module, optimiser, schedule = trained
    state = RunState(1, 2.0, "base", schedule.state_dict(), 1, 0.5, {"sts": 0.5})
    write_checkpoint(tmp_path, state, trained_weights(module), optimiser)
    path = checkpoint_path(tmp_path, 1)

    def resume():
        found, _ = read_checkpoint(path, optimiser)
        schedule = build_schedule(optimiser, OptimiserConfig(), 4)
        restore_schedule(schedule, found, path)
        schedule.step()
        return found

    assert survive(path / "state.json", resume, MillpondError) == []
    assert resume().scores == {"sts": 0.5}


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors"])
def test_tensors_that_are_cut_short_are_refused(trained, tmp_path, name):
    module, optimiser, schedule = trained
    state = RunState(1, 2.0, "base", schedule.state_dict())
    write_checkpoint(tmp_path, state, trained_weights(module), optimiser)
    path = checkpoint_path(tmp_path, 1)
    whole = (path / name).read_bytes()
    for data in (b"", whole[:8], whole[: len(whole) // 2], whole[:-1], b"\xff" * 64):
        (path / name).write_bytes(data)
        with pytest.raises(MillpondError, match="the checkpoint cannot be read"):
            read_checkpoint(path, optimiser)


@pytest.mark.parametrize(
    "change",
    [
        {"0.exp_avg": torch.zeros(2, 1)},
        {"1.exp_avg_sq": torch.zeros(3)},
        {"2.exp_avg": torch.zeros(1)},
        {"-1.exp_avg": torch.zeros(1)},
        {"weight.exp_avg": torch.zeros(1, 2)},
        {"exp_avg": torch.zeros(1, 2)},
    ],
)
def test_moments_of_other_parameters_are_refused(trained, tmp_path, change):
    module, optimiser, schedule = trained
    state = RunState(1, 2.0, "base", schedule.state_dict())
    write_checkpoint(tmp_path, state, trained_weights(module), optimiser)
    path = checkpoint_path(tmp_path, 1)
    read_checkpoint(path, optimiser)
    moments = path / "optimiser.safetensors"
    moments.write_bytes(save({**load(moments.read_bytes()), **change}))
    with pytest.raises(MillpondError, match="the checkpoint cannot be read"):
        read_checkpoint(path, optimiser)


def test_the_record_of_a_run_is_read_or_refused(config, tmp_path):
    folder = RunFolder(tmp_path / "out")
    source = {"path": "p", "sha256": {"p": "0"}, "pairs": 3, "negatives": 0, "weight": 1.0}
    folder.start(config(), [source])
    run = tmp_path / "out" / "run.json"
    assert survive(run, lambda: folder.start(config(), [source]), MillpondError) == []


def test_a_damaged_line_of_the_metrics_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n')
    assert survive(path, lambda: MetricsLog(tmp_path, 3), ()) == []
    path.write_text('{"step": "x"}\n{"step": 1, "loss": 2.0}\n{"step": 9, "loss": 1.0}\n{"st')
    MetricsLog(tmp_path, 3)
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_the_rank_of_a_start_is_read_or_refused(tmp_path):
    path = tmp_path / "adapter" / "adapter_config.json"
    path.parent.mkdir()
    path.write_text('{"r": 2, "lora_alpha": 4}')
    assert survive(path, lambda: saved_scaling(tmp_path), MillpondError) == []
    assert saved_scaling(tmp_path) == (2, 4)
