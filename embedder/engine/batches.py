"""Which texts go through the model together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Budget", "mixed_batches", "packed_batches", "token_batches", "tokenized_ahead"]

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
