"""How many tokens go through the model at once: as asked, less after a lack of memory, or found."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch

from embedder.engine.transfer import free_bytes

__all__ = ["CUDA_TOKENS", "TokenBudget", "budget_of", "is_out_of_memory"]

CUDA_TOKENS = 65_536
"""Tokens a batch of an Embedder on CUDA that was asked for none; from these others are found."""

MOST_TOKENS = 4 * CUDA_TOKENS
"""With more, a layer's inner states of 8,192 numbers a token pass what 32 bits can count."""

LEAST_GAIN = 1.05
_FULL = 0.75
_BATCHES_EACH = 3
_MEMORY_SHARE = 0.8


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
