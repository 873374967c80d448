"""What a training run cost and how its loss went, read from the folder that it left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from embedder.models.manifest import ADAPTER_WEIGHTS, POOLING_WEIGHTS
from embedder.training.config import TrainConfig

__all__ = ["describe_training", "late_gain"]

_CURVE_POINTS = 200
_PARTS = {
    "adapter_parameters": ADAPTER_WEIGHTS,
    "pooling_parameters": POOLING_WEIGHTS,
}


def describe_training(model: Path, config: TrainConfig) -> dict[str, Any]:
    """Return seconds, tokens, rates, sizes and the loss curve of a finished run.

    Seconds and tokens are of the steps alone, without loading, over all parts of a run that was
    stopped and resumed.
    """
    entries = [
        json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines() if line
    ]
    steps = [entry for entry in entries if "loss" in entry]
    seconds = tokens = 0.0
    before = 0
    for entry in steps:
        pairs = (entry["step"] - before) * config.batch_pairs
        took = pairs / max(entry["pairs_per_second"], 1e-9)
        seconds += took
        tokens += took * entry["tokens_per_second"]
        before = entry["step"]
    curve = [(entry["step"], entry["loss"]) for entry in steps]
    return {
        "seconds": round(seconds, 3),
        "tokens": round(tokens),
        "pairs": before * config.batch_pairs,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
        "model_bytes": sum(path.stat().st_size for path in model.rglob("*") if path.is_file()),
        "curve": curve[:: max(1, len(curve) // _CURVE_POINTS)],
        **{name: _count(model / part) for name, part in _PARTS.items()},
    }


def late_gain(curve: Sequence[Sequence[float]]) -> float | None:
    """Return by which share the loss still fell from the fourth to the last fifth of a run.

    Near 0 where training has converged; None where the curve has fewer than ten points.
    """
    fifth = len(curve) // 5
    if fifth < 2:
        return None
    fourth, last = curve[-2 * fifth : -fifth], curve[-fifth:]
    return 1 - fmean(loss for _, loss in last) / fmean(loss for _, loss in fourth)


def _count(path: Path) -> int:
    """Return how many numbers a safetensors file holds; 0 where there is none."""
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        count = 1
        for size in tensor["shape"]:
            count *= size
        total += count
    return total
