"""Which texts go through the model together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from embedder.engine.budget import to_device

if TYPE_CHECKING:
    from embedder.engine.packing import Group

__all__ = [
    "Budget",
    "mixed_batches",
    "packed_batches",
    "token_batches",
    "tokenized_ahead",
    "Bucket",
    "make_buckets",
]

Budget = int | Callable[[], int]
"""Most tokens in a batch; a function is asked again before each."""

AHEAD = 2
"""Windows of texts that may be tokenised before they are needed."""


def token_batches(lengths: Sequence[int], budget: Budget) -> Iterator[list[int]]:
    """Yield indices of texts, longest first, so that rows x longest row stays in the budget."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rows = max(1, _now(budget) // lengths[order[start]])
        yield order[start : start + rows]
        start += rows


def packed_batches(lengths: Sequence[int], budget: Budget) -> Iterator[list[int]]:
    """Yield indices of texts, longest first, so that all their tokens stay in the budget.

    A text longer than the budget goes alone. Texts of equal length come together.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batch: list[int] = []
    tokens, most = 0, _now(budget)
    for index in order:
        if batch and tokens + lengths[index] > most:
            yield batch
            batch, tokens, most = [], 0, _now(budget)
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def mixed_batches(
    lengths: Sequence[int], longest_packed: int, budget: Budget
) -> Iterator[tuple[bool, list[int]]]:
    """Yield whether a batch is packed, and indices of its texts: first those to be padded.

    Texts of up to ``longest_packed`` tokens are packed.
    """
    for packs, batches in ((False, token_batches), (True, packed_batches)):
        chosen = [i for i, length in enumerate(lengths) if (length <= longest_packed) == packs]
        for places in batches([lengths[index] for index in chosen], budget):
            yield packs, [chosen[place] for place in places]


def _now(budget: Budget) -> int:
    return budget if isinstance(budget, int) else budget()


def tokenized_ahead(
    tokenize: Callable[[Sequence[str]], list[list[int]]], texts: Sequence[str], window: int
) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield (index of the first text, token ids) for each ``window`` of texts, in order.

    While one window is being used, a thread tokenises the next ones, ``AHEAD`` at most: fast
    tokenizers compute outside Python's lock. What ``tokenize`` raises is raised here.
    """
    starts = range(0, len(texts), window)
    if len(starts) < 2:  # nothing to be ahead of
        yield from ((start, tokenize(texts[start : start + window])) for start in starts)
        return
    pending: deque[tuple[int, Future[list[list[int]]]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="millpond-tokenize") as pool:
        try:
            for start in starts:
                pending.append((start, pool.submit(tokenize, texts[start : start + window])))
                if len(pending) > AHEAD:
                    first, rows = pending.popleft()
                    yield first, rows.result()
            while pending:
                first, rows = pending.popleft()
                yield first, rows.result()
        finally:
            for _, future in pending:
                future.cancel()


MOST_PADDED = 1.25
"""A bucket has at most so many places for each token."""


@dataclass(frozen=True)
class Bucket:
    """Neighbouring texts, padded on the right to the longest of them.

    Attributes
    ----------
    start, stop : the first token of the batch that belongs here, and one past the last.
    real : (texts, tokens) bool, True at tokens.
    slots : (stop - start,) int64, where in ``texts * tokens`` places each token goes; None where
        all texts are of one length, so that nothing is padded.
    """

    start: int
    stop: int
    real: Tensor
    slots: Tensor | None

    def pad(self, states: Tensor) -> Tensor:
        """Return (texts, tokens, ...) of the batch's (total, ...), 0 in the padding."""
        own = states[self.start : self.stop]
        shape = (*self.real.shape, *states.shape[1:])
        if self.slots is None:
            return own.reshape(shape)
        padded = states.new_zeros(self.real.numel(), *states.shape[1:])
        return padded.index_copy_(0, self.slots, own).view(shape)

    def unpad(self, padded: Tensor) -> Tensor:
        """Return (stop - start, ...) of (texts, tokens, ...)."""
        flat = padded.reshape(self.real.numel(), *padded.shape[2:])
        return flat if self.slots is None else flat[self.slots]


def make_buckets(groups: Sequence[Group], device: torch.device) -> tuple[Bucket, ...]:
    """Return buckets over all tokens in order, of neighbouring groups of similar length."""
    buckets: list[Bucket] = []
    together: list[Group] = []
    for group in groups:
        if together and not _may_join([*together, group]):
            buckets.append(_bucket(together, device))
            together = []
        together.append(group)
    return (*buckets, _bucket(together, device)) if together else tuple(buckets)


def _may_join(groups: Sequence[Group]) -> bool:
    texts = sum(group.texts for group in groups)
    longest = max(group.tokens for group in groups)
    return texts * longest <= MOST_PADDED * (groups[-1].stop - groups[0].start)


def _bucket(groups: Sequence[Group], device: torch.device) -> Bucket:
    lengths = np.repeat([g.tokens for g in groups], [g.texts for g in groups])
    longest = int(lengths.max())
    real = np.arange(longest) < lengths[:, None]
    slots = None if real.all() else to_device(torch.from_numpy(np.flatnonzero(real)), device)
    return Bucket(
        groups[0].start, groups[-1].stop, to_device(torch.from_numpy(real), device), slots
    )
