"""Which texts go through the model together, and how many tokens at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "CUDA_TOKENS",
    "Budget",
    "Bucket",
    "Group",
    "PackedBatch",
    "TokenBudget",
    "budget_of",
    "is_out_of_memory",
    "mixed_batches",
    "packed_batches",
    "pad_batch",
    "to_device",
    "token_batches",
]

CUDA_TOKENS = 65_536
"""Tokens a batch of an Embedder on CUDA that was asked for none; from these others are found."""

MOST_TOKENS = 4 * CUDA_TOKENS
"""With more, a layer's inner states of 8,192 numbers a token pass what 32 bits can count."""

LEAST_GAIN = 1.05
_FULL = 0.75
_BATCHES_EACH = 3
_MEMORY_SHARE = 0.8


Budget = int | Callable[[], int]
"""Most tokens in a batch; a function is asked again before each."""


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


def pad_batch(
    rows: Sequence[Sequence[int]], pad_id: int, side: Literal["left", "right"] = "right"
) -> tuple[Tensor, Tensor]:
    """Return ids (B, T) int64 and mask (B, T) int64, 1 at real tokens, padded on one side."""
    tokens = max(len(row) for row in rows)
    ids = torch.full((len(rows), tokens), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        start = tokens - len(row) if side == "left" else 0
        ids[index, start : start + len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[index, start : start + len(row)] = 1
    return ids, mask


@dataclass(frozen=True)
class Group:
    """Neighbouring texts of one length: ``texts`` times ``tokens`` tokens from ``start`` on."""

    start: int
    texts: int
    tokens: int

    @property
    def stop(self) -> int:
        """One past the last token."""
        return self.start + self.texts * self.tokens


@dataclass(frozen=True)
class PackedBatch:
    """Texts one after another, padded nowhere.

    Attributes
    ----------
    ids : (1, total) int64.
    positions : (1, total) int64, 0 at the first token of every text.
    groups : cover all tokens in order.
    """

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device) -> PackedBatch:
        """Pack rows of at least one token each; equal lengths side by side make one group."""
        total = sum(map(len, rows))
        ids = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64, total))
        groups: list[Group] = []
        for row in rows:
            if groups and groups[-1].tokens == len(row):
                last = groups.pop()
                groups.append(Group(last.start, last.texts + 1, last.tokens))
            else:
                groups.append(Group(groups[-1].stop if groups else 0, 1, len(row)))
        positions = torch.cat([torch.arange(g.tokens).repeat(g.texts) for g in groups])
        return cls(to_device(ids[None], device), to_device(positions[None], device), tuple(groups))

    @cached_property
    def offsets(self) -> Tensor:
        """Where each text begins, then the number of tokens: (B + 1,) int32."""
        lengths = np.repeat([g.tokens for g in self.groups], [g.texts for g in self.groups])
        starts = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        return to_device(torch.from_numpy(starts), self.ids.device)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest text."""
        return max(group.tokens for group in self.groups)

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """All tokens in order, in few buckets that are padded a little."""
        return make_buckets(self.groups, self.ids.device)

    def reduce(self, states: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return a vector per text, (B, D), of token states (total, D).

        ``function`` takes (n, T, D) and a mask (n, T) bool, True at tokens, and gives (n, D): any
        pooling over padded states. It is called once a group, so never with padding, but on CUDA
        once a bucket.
        """
        if states.device.type == "cuda":
            return self.reduce_buckets(states, function)
        found = []
        for group in self.groups:
            own = states[group.start : group.stop].view(group.texts, group.tokens, -1)
            found.append(function(own, own.new_ones(own.shape[:2], dtype=torch.bool)))
        return torch.cat(found)

    def reduce_buckets(
        self, states: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return what ``reduce`` does, by one call a bucket."""
        return torch.cat([function(each.pad(states), each.real) for each in self.buckets])


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


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the CPU tensor on ``device``; to a GPU through pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def free_bytes(device: torch.device) -> int:
    """Return how much memory of a GPU a batch may still take; 0 where that is not known.

    What torch's allocator holds without using it counts as free.
    """
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + held


class TokenBudget:
    """How many tokens a batch may have.

    One that grows starts at a quarter of the tokens asked for, and doubles as long as that makes
    encoding faster by 5 per cent or more, up to ``MOST_TOKENS`` or four fifths of the free memory.
    A size is judged by the median of its batches after the first one, which are at least three
    quarters full. Any kind can be made smaller by ``shrink``, and then stays.

    Attributes
    ----------
    asked : what it was made for.
    tokens : most tokens in a batch now.
    is_settled : whether only a lack of memory can still change it.

    Parameters
    ----------
    free : gives the bytes that a batch may take.
    """

    def __init__(self, asked: int, *, grows: bool, free: Callable[[], int]) -> None:
        self.asked = asked
        self.tokens = max(1, asked // 4) if grows else asked
        self.is_settled = not grows
        self._free = free
        self._slower_rate = 0.0
        self._rates: list[float] = []
        self._bytes_each = 0.0

    def record(self, tokens: int, seconds: float, used_bytes: int) -> None:
        """Take note of a batch that is done."""
        full = _FULL * self.tokens <= tokens <= self.tokens
        if self.is_settled or not full or seconds <= 0:
            return
        self._rates.append(tokens / seconds)
        self._bytes_each = max(self._bytes_each, used_bytes / tokens)
        if len(self._rates) == _BATCHES_EACH:
            self._judge(statistics.median(self._rates[1:]))
            self._rates = []

    def shrink(self, failed_tokens: int) -> None:
        """Allow half of a batch that did not fit into memory, at the most, from now on."""
        self.tokens = min(self.tokens, max(1, failed_tokens // 2))
        self.is_settled = True

    def _judge(self, rate: float) -> None:
        doubled = 2 * self.tokens
        if rate < LEAST_GAIN * self._slower_rate:
            self.is_settled = True
            if rate < self._slower_rate:
                self.tokens //= 2
        elif doubled > MOST_TOKENS or doubled * self._bytes_each > _MEMORY_SHARE * self._free():
            self.is_settled = True
        else:
            self.tokens, self._slower_rate = doubled, rate


_budgets: WeakKeyDictionary[Any, TokenBudget] = WeakKeyDictionary()


def budget_of(model: Any) -> TokenBudget:
    """Return the budget of an ``EngineSettings``, the same one until it asks for another number.

    It grows on CUDA where ``CUDA_TOKENS`` are asked for, the number of those who ask for none.
    """
    asked, device = model.batch_tokens, model.device
    budget = _budgets.get(model)
    if budget is None or budget.asked != asked:
        grows = device.type == "cuda" and asked == CUDA_TOKENS
        budget = TokenBudget(asked, grows=grows, free=lambda: free_bytes(device))
        _budgets[model] = budget
    return budget


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had too little memory; its libraries say so in several ways."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and (
        "CUBLAS_STATUS_ALLOC_FAILED" in told or "CUDA error: out of memory" in told
    )
