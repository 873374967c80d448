"""Which pairs make up a batch: a pure function of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError

__all__ = ["BatchSampler"]

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
