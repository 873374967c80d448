"""Tiny training data and configs."""

import json

import pytest
import torch

from embedder.pooling import POOLINGS
from embedder.training.config import read_config

WORDS = ("mill", "pond", "water", "wheel", "flour", "grain", "stone", "river", "race", "weir")


@pytest.fixture
def write_pairs(tmp_path):
    """Write JSON lines; a bytes row is written as it is."""

    def write(*rows, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_bytes(
            b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows)
        )
        return path

    return write


def some_pairs(count=12, negatives=1):
    """Pairs of different lengths, each with its own words."""
    return [
        {
            "query": f"what of {WORDS[i % len(WORDS)]} {i}",
            "positive": " ".join(WORDS[(i + k) % len(WORDS)] for k in range(1 + i % 5)) + f" {i}",
            "negatives": [f"not {WORDS[(i + 5 + k) % len(WORDS)]} {i}" for k in range(negatives)],
        }
        for i in range(count)
    ]


@pytest.fixture
def pairs_file(write_pairs):
    return write_pairs(*some_pairs())


@pytest.fixture
def plan(base_folder, pairs_file):
    """Return the data of a tiny config, changed by dotted keys written with two underscores."""

    def build(**changes):
        data = {
            "batch_pairs": 4,
            "steps": 4,
            "forward_tokens": 64,
            "log_every_steps": 1,
            "model": {
                "base": str(base_folder["llama"]),
                "pooling": "mean",
                "attention": "causal",
                "max_tokens": 48,
            },
            "data": [{"path": str(pairs_file)}],
            "loss": {"scale": 20},
            "optimiser": {"learning_rate": 1e-3},
            "adapter": {"rank": 2, "alpha": 4},
            "checkpoint": {"every_steps": 2},
        }
        for key, value in changes.items():
            *parents, last = key.split("__")
            target = data
            for parent in parents:
                target = target.setdefault(parent, {})
            target[last] = value
        return {key: value for key, value in data.items() if value is not None}

    return build


@pytest.fixture
def config(plan, tmp_path):
    return lambda **changes: read_config(plan(**changes), tmp_path)


@pytest.fixture
def variant_config(config):
    """Make a config of a pooling and attention, with tiny random weights where it has any."""

    def build(pooling, attention, **changes):
        options = {"init": "random", "latents": 4, "head_width": 8}
        accepted = POOLINGS[pooling].accepts
        return config(
            model__pooling=pooling,
            model__attention=attention,
            model__pooling_options={k: v for k, v in options.items() if k in accepted},
            **changes,
        )

    return build


@pytest.fixture(scope="session")
def assert_same():
    """Compare gradients by name, each by its own largest number where that is above 1."""

    def compare(first, second, tolerance):
        assert first.keys() == second.keys()
        for name, gradient in first.items():
            largest = gradient.abs().max().clamp(min=1.0)
            torch.testing.assert_close(
                second[name] / largest, gradient / largest, atol=tolerance, rtol=0, msg=name
            )

    return compare
