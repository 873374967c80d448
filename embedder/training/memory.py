"""What the steps of a run will hold in memory, said before the system ends the run."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import psutil
import torch

from embedder.embedder import Embedder
from embedder.training.batch import SourceTokenizer, draw_pairs
from embedder.training.config import TrainConfig
from embedder.training.data import TrainingData
from embedder.training.distributed import Processes
from embedder.training.sampler import BatchSampler

__all__ = ["graph_bytes", "largest_step", "memory_note"]

_MOST_STEPS = 32
_MOST_PAIRS = 4096
_WIDTHS = ("hidden_size", "intermediate_size")
_NUMBERS_PER_WIDTH, _NUMBERS_PER_INTERMEDIATE = 12, 6


def memory_note(
    embedder: Embedder,
    config: TrainConfig,
    data: TrainingData,
    sampler: BatchSampler,
    tokenizer: SourceTokenizer,
    processes: Processes,
    steps: range,
) -> str | None:
    """Return what to tell the user if a step may need more memory than there is, else None.

    The system ends a process that takes too much without a word from it. Only the CPU in float32
    is looked at: its need was measured (docs/training.md), and a GPU that is full raises an error.
    """
    if config.gradient_cache or config.gradient_checkpointing or processes.device.type != "cpu":
        return None
    held = graph_bytes(embedder)
    if held is None or len(steps) == 0:
        return None
    tokens = largest_step(config, data, sampler, tokenizer, steps)
    here = min(processes.count, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    needed = tokens * held * here // processes.count
    free = int(psutil.virtual_memory().available)
    if needed <= free:
        return None
    fitting = max(2, config.batch_pairs * free // needed)
    return (
        f"Note: steps of up to {tokens:,} tokens may need {needed / 1e9:.0f} GB and "
        f"{free / 1e9:.0f} GB are free, so the system may end the run. With gradient_cache = true "
        f"it fits, a third slower; so it may with batch_pairs = {fitting}."
    )


def graph_bytes(embedder: Embedder) -> int | None:
    """Return about how many bytes a token's activations take until the gradient is there.

    None where the base does not tell its widths, or does not compute in float32.
    """
    backbone: Any = embedder.backbone
    shape = vars(backbone.model.config)
    if not shape.keys() >= set(_WIDTHS) or backbone.model.dtype is not torch.float32:
        return None
    width, intermediate = (int(shape[name]) for name in _WIDTHS)
    numbers = _NUMBERS_PER_WIDTH * width + _NUMBERS_PER_INTERMEDIATE * intermediate
    return 4 * numbers * int(backbone.layer_count)


def largest_step(
    config: TrainConfig,
    data: TrainingData,
    sampler: BatchSampler,
    tokenizer: SourceTokenizer,
    steps: range,
) -> int:
    """Return the most tokens of a step, of all processes together, among some of the steps."""
    looked_at = max(1, min(_MOST_STEPS, _MOST_PAIRS // config.batch_pairs, len(steps)))
    most = 0
    for place in np.linspace(0, len(steps) - 1, looked_at).astype(int).tolist():
        step = steps[place]
        pairs = draw_pairs(
            data, sampler.batch(step), config.loss.hard_negatives, (config.seed, 2, step)
        )
        most = max(most, tokenizer.count_tokens(pairs))
    return most
