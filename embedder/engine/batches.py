"""Which texts go through the model together, and how many tokens at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

CUDA_TOKENS = 65_536
"""Tokens per batch on CUDA by default: where the search for the best number starts."""

MOST_TOKENS = 4 * CUDA_TOKENS
"""More would overflow 32-bit counts in a layer with 8,192 inner numbers per token."""

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
    pad = partial(pad_sequence, batch_first=True, padding_side=side)
    ids = pad([torch.tensor(row, dtype=torch.int64) for row in rows], padding_value=pad_id)
    return ids, pad([torch.ones(len(row), dtype=torch.int64) for row in rows])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the CPU tensor on ``device``; to a GPU through pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class PaddedBatch:
    """Texts padded to the longest of them; ids and mask (B, T) int64, the mask 1 at tokens."""

    ids: Tensor
    mask: Tensor

    @classmethod
    def of(
        cls,
        rows: Sequence[Sequence[int]],
        device: torch.device,
        pad_id: int,
        side: Literal["left", "right"] = "right",
    ) -> PaddedBatch:
        """Pad rows of token ids on one side."""
        return cls(*(to_device(each, device) for each in pad_batch(rows, pad_id, side)))

    def reduce(self, states: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return a vector per text, (B, D), of token states (B, T, D); see ``PackedBatch``."""
        return function(states, self.mask.bool())


class Arrival:
    """A result on its way to the CPU while the GPU computes on; elsewhere it is there at once."""

    def __init__(self, found: Tensor) -> None:
        self._there: Any = None
        if found.device.type != "cuda":
            self._tensor = found.cpu()
            return
        self._tensor = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        self._tensor.copy_(found, non_blocking=True)
        self._there = _new_event()
        self._there.record(torch.cuda.current_stream(found.device))

    def wait(self) -> Tensor:
        """Return the tensor on the CPU, once it is whole."""
        if self._there is not None:
            self._there.synchronize()
        return self._tensor


class Meter:
    """Measures one batch: its time on the device, and its peak memory.

    On CUDA both are read without making the GPU wait: the time from two events, the memory from
    the allocator's own count. Elsewhere the time is the clock's, and the memory is not known.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self.used_bytes = 0
        self._began = time.perf_counter()
        self._ended = self._began
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(device)
            self._before_bytes = torch.cuda.memory_allocated(device)
            self._events = [_new_event(), _new_event()]
            self._events[0].record(torch.cuda.current_stream(device))

    def stop(self) -> None:
        """Mark the end: the batch was handed to the GPU, or is done on the CPU."""
        self._ended = time.perf_counter()
        if self._is_cuda:
            peak_bytes = torch.cuda.max_memory_allocated(self._device)
            self.used_bytes = peak_bytes - self._before_bytes
            self._events[1].record(torch.cuda.current_stream(self._device))

    @property
    def seconds(self) -> float:
        """How long it took; on CUDA only once its result has arrived."""
        if self._is_cuda:
            self._events[1].synchronize()
            return float(self._events[0].elapsed_time(self._events[1])) / 1000
        return self._ended - self._began


def _new_event() -> Any:
    """Return a mark in a GPU's work that can be waited for and timed."""
    cuda: Any = torch.cuda  # its classes have no types
    return cuda.Event(enable_timing=True)


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of a GPU a batch may still take; 0 where that is not known.

    What torch's allocator holds without using it counts as free.
    """
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + held


class TokenBudget:
    """The most tokens that a batch may have.

    A growing budget starts at a quarter of the tokens asked for, and doubles as long as that makes
    encoding faster by 5 per cent or more, up to ``MOST_TOKENS`` or four fifths of the free memory.
    A size is judged by the median of its batches after the first one, which are at least three
    quarters full. Any kind can be made smaller by ``shrink``, and then stays.

    Attributes
    ----------
    asked : the tokens it was made for.
    tokens : most tokens in a batch now.
    is_settled : whether only a lack of memory can still change it.

    Parameters
    ----------
    free : returns how many bytes a batch may take.
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
        """Record a finished batch."""
        full = _FULL * self.tokens <= tokens <= self.tokens
        if self.is_settled or not full or seconds <= 0:
            return
        self._rates.append(tokens / seconds)
        self._bytes_each = max(self._bytes_each, used_bytes / tokens)
        if len(self._rates) == _BATCHES_EACH:
            self._judge(statistics.median(self._rates[1:]))
            self._rates = []

    def shrink(self, failed_tokens: int) -> None:
        """From now on allow at most half of a batch that did not fit into memory."""
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
    """Return the budget of a ``BatchEncoder``, the same one until its ``batch_tokens`` change.

    It grows on CUDA where these are ``CUDA_TOKENS``, the default.
    """
    asked, device = model.batch_tokens, model.device
    budget = _budgets.get(model)
    if budget is None or budget.asked != asked:
        grows = device.type == "cuda" and asked == CUDA_TOKENS
        budget = TokenBudget(asked, grows=grows, free=lambda: free_bytes(device))
        _budgets[model] = budget
    return budget


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had too little memory, which libraries say in several ways."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and (
        "CUBLAS_STATUS_ALLOC_FAILED" in told or "CUDA error: out of memory" in told
    )
