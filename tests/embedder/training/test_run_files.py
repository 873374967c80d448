"""Checkpoints and the record of a run in every state of damage: read, or refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from transformers import get_scheduler

from embedder.training.checkpoint import (
    RunFolder,
    RunState,
    checkpoint_path,
    read_checkpoint,
    trained_weights,
    write_checkpoint,
)
from embedder.training.config import OptimiserConfig
from embedder.training.log import MetricsLog
from embedder.training.setup import rate_factor, saved_scaling
from retrieval.errors import MillpondError
from tests.stored_files import survive


@pytest.fixture
def trained():
    """A module and an optimiser after one step."""
    module = nn.Linear(2, 1)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return module, optimiser


def test_the_state_of_a_checkpoint_is_read_or_refused(trained, tmp_path):
    module, optimiser = trained
    state = RunState(1, 2.0, "base", 1, 0.5, {"sts": 0.5})
    write_checkpoint(tmp_path, state, trained_weights(module), optimiser)
    path = checkpoint_path(tmp_path, 1)

    def resume():
        return read_checkpoint(path, optimiser)[0]

    assert survive(path / "state.json", resume, MillpondError) == []
    assert resume() == state


def test_a_checkpoint_of_before_holds_a_schedule_that_is_not_read(trained, tmp_path):
    module, optimiser = trained
    write_checkpoint(tmp_path, RunState(1, 2.0, "base"), trained_weights(module), optimiser)
    path = checkpoint_path(tmp_path, 1) / "state.json"
    state = {**json.loads(path.read_text()), "schedule": {"last_epoch": 1, "_last_lr": [0.0005]}}
    path.write_text(json.dumps(state))
    assert read_checkpoint(path.parent, optimiser)[0].step == 1


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.3, 1.0])
def test_rates_are_those_of_transformers(name, warmup_ratio):
    config = OptimiserConfig(schedule=name, warmup_ratio=warmup_ratio)
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimiser,
        num_warmup_steps=round(warmup_ratio * 10),
        num_training_steps=10,
    )
    for step in range(10):
        assert rate_factor(config, step, 10) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors"])
def test_tensors_that_are_cut_short_are_refused(trained, tmp_path, name):
    module, optimiser = trained
    state = RunState(1, 2.0, "base")
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
    module, optimiser = trained
    state = RunState(1, 2.0, "base")
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
