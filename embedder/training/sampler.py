"""Which pairs make up a batch: a pure function of the seed and the step."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from embedder.embedder import Embedder
from embedder.training.batch import SourceTokenizer, draw_pairs
from embedder.training.config import TrainConfig
from embedder.training.data import TrainingData
from embedder.training.processes import Processes
from retrieval.errors import UsageError

__all__ = ["BatchSampler", "graph_bytes", "largest_step", "memory_note"]

_Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Epoch:
    """One pass: the source of every slot in order, and how far each source had been read."""

    labels: npt.NDArray[np.int32]
    consumed: tuple[int, ...]


class BatchSampler:
    """Names the pairs of any batch, by source and number.

    Each source is read in a shuffled order that is drawn anew each time it has been read through.
    An epoch takes ``weight x pairs`` from each source, so with equal weights every pair once,
    except for what is left over after whole batches, which comes first in the next epoch.

    Parameters
    ----------
    sizes : pairs in each source.
    weights : how often a pair of each source is seen, relative to the others.
    one_source_per_batch : whether the pairs of a batch come from one source.

    Raises
    ------
    UsageError : an epoch would not fill one batch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        batch_pairs: int,
        seed: int,
        *,
        one_source_per_batch: bool = False,
    ) -> None:
        self._sizes = tuple(sizes)
        self._batch = batch_pairs
        self._seed = seed
        self._grouped = one_source_per_batch
        shares = [size * weight for size, weight in zip(sizes, weights, strict=True)]
        if one_source_per_batch:
            self._counts = [max(1, round(share / batch_pairs)) for share in shares]
            self.steps_per_epoch = sum(self._counts)
        else:
            self._counts = [max(1, round(share)) for share in shares]
            self.steps_per_epoch = sum(self._counts) // batch_pairs
        if self.steps_per_epoch < 1:
            raise UsageError(
                f"batch_pairs is {batch_pairs}, but the weights leave {sum(self._counts)} pairs "
                f"in an epoch. Raise the weights, or set batch_pairs lower."
            )
        self._epochs: dict[int, _Epoch] = {}
        self._orders: dict[tuple[int, int], _Places] = {}

    def steps_in(self, epochs: float) -> int:
        """Return the number of steps that so many epochs take, 1 at least."""
        return max(1, math.ceil(epochs * self.steps_per_epoch))

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Return (source, pair) for each place of a batch; ``step`` counts from 0."""
        number, inside = divmod(step, self.steps_per_epoch)
        epoch = self._epoch(number)
        start = inside * self._batch
        consumed = list(epoch.consumed)
        for source, count in enumerate(self._count(epoch.labels[:start])):
            consumed[source] += int(count)
        found = []
        for label in epoch.labels[start : start + self._batch].tolist():
            found.append((label, self._pair(label, consumed[label])))
            consumed[label] += 1
        return found

    def _epoch(self, number: int) -> _Epoch:
        """Return an epoch; the ones before it are passed through once, and one is kept."""
        if number not in self._epochs:
            last = max((known for known in self._epochs if known < number), default=None)
            if last is None:
                consumed, first = [0] * len(self._sizes), 0
            else:
                epoch = self._epochs[last]
                consumed = [
                    a + int(b)
                    for a, b in zip(epoch.consumed, self._count(epoch.labels), strict=True)
                ]
                first = last + 1
            for at in range(first, number):
                for source, count in enumerate(self._count(self._labels(at))):
                    consumed[source] += int(count)
            self._epochs = {number: _Epoch(self._labels(number), tuple(consumed))}
        return self._epochs[number]

    def _labels(self, number: int) -> npt.NDArray[np.int32]:
        """Return the source of each place of an epoch's batches, in order."""
        labels = np.repeat(np.arange(len(self._sizes), dtype=np.int32), self._counts)
        np.random.default_rng([self._seed, 0, number]).shuffle(labels)
        if self._grouped:
            return np.repeat(labels, self._batch)
        return labels[: self.steps_per_epoch * self._batch]

    def _count(self, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        return np.bincount(labels, minlength=len(self._sizes))

    def _pair(self, source: int, position: int) -> int:
        """Return the pair at a position of a source's endless order."""
        size = self._sizes[source]
        turn, place = divmod(position, size)
        key = (source, turn)
        if key not in self._orders:
            # A batch may reach over the end of a turn, so the one before is kept too.
            self._orders = {
                k: v for k, v in self._orders.items() if k[0] != source or k[1] == turn - 1
            }
            rng = np.random.default_rng([self._seed, 1, source, turn])
            self._orders[key] = rng.permutation(size)
        return int(self._orders[key][place])


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
