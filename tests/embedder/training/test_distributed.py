"""Two processes on one batch do what one process does with all of it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embedder.training import train
from embedder.training.config import read_config
from embedder.training.distillation.losses import LOSSES
from embedder.training.processes import Processes
from retrieval.errors import UsageError
from tests.embedder.training.stepping import step_gradients

ALONE = Processes(torch.device("cpu"))


def launch(*args):
    """Run two_processes.py as torchrun would; return what each process prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("two_processes.py")
    started = [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, args)],
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",  # as torchrun sets it
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return printed


def test_two_processes_have_the_gradients_and_the_weights_of_one_with_the_joined_batch(
    plan, write_pairs, tmp_path, base_folder
):
    # Unequal numbers of negatives and of chunks, a duplicate across the halves, unused layers.
    rows = [
        {
            "query": f"q {i}",
            "positive": f"text {i} " * (1 + 3 * (i // 4)),
            "negatives": ["no"] * (i % 3),
        }
        for i in range(8)
    ]
    rows[7]["positive"] = rows[0]["positive"]
    plans = {
        "gradients": plan(
            data=[{"path": str(write_pairs(*rows, name="joined.jsonl"))}],
            batch_pairs=8,
            adapter__dropout=0.0,
            model__pooling="multi_layer",
            model__pooling_options={"layers": [1, 2], "latents": 4},
            loss__hard_negatives=2,
            loss__symmetric=True,
        ),
        "train": plan(adapter__dropout=0.0, steps=3),
        "taught": plan(
            data=[{"path": str(write_pairs(*rows, name="lessons.jsonl"))}],
            adapter__dropout=0.0,
            steps=3,
            teacher={
                "model": f"{base_folder['qwen3']}:mean+causal",
                "weights": dict.fromkeys((*LOSSES, "info_nce"), 1.0),
                "held_out": 0,
            },
        ),
    }
    (tmp_path / "plan.json").write_text(json.dumps(plans))
    chunks = launch(tmp_path / "plan.json", tmp_path)
    assert int(chunks[0]) != int(chunks[1])

    expected, _ = step_gradients(read_config(plans["gradients"], tmp_path), ALONE, cached=False)
    for name in ("plain-0", "plain-1", "cached-0", "cached-1"):
        found = load_file(tmp_path / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, atol=1e-6, rtol=1e-5, msg=key)

    for name in ("train", "taught"):
        alone = train(read_config(plans[name], tmp_path), tmp_path / name, device="cpu")
        one, both = (
            load_file(folder / "adapter" / "adapter_model.safetensors")
            for folder in (alone, tmp_path / f"{name}-by-two")
        )
        for key, tensor in one.items():
            torch.testing.assert_close(both[key], tensor, atol=1e-4, rtol=0, msg=f"{name} {key}")


def test_a_batch_that_processes_cannot_share_is_refused(config, tmp_path, monkeypatch):
    three = Processes(torch.device("cpu"), 0, 3)
    monkeypatch.setattr("embedder.training.trainer.join_processes", lambda _: three)
    with pytest.raises(UsageError, match="batch_pairs is 4, which 3 processes cannot share"):
        train(config(), tmp_path / "out", device="cpu")
