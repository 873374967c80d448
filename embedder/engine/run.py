"""The loop that takes token ids through a model, batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from embedder.engine.batches import (
    Arrival,
    Meter,
    PaddedBatch,
    budget_of,
    is_out_of_memory,
    mixed_batches,
)
from embedder.engine.packing import PackedBatch
from embedder.engine.text import check_texts
from retrieval.errors import ModelError, check_fork
from retrieval.protocols import Progress, Vectors, no_progress

_LEAST_WINDOW_TEXTS = 1024

AHEAD = 2
"""Windows of texts that may be tokenised before they are needed."""

TokenRows = Sequence[Sequence[int]]

Found = Iterator[tuple[list[int], Tensor]]

Embed = Callable[[PackedBatch | PaddedBatch], Tensor]
"""A batch to vectors (B, D)."""


class BatchEncoder(Protocol):
    """What the loop reads of an Embedder."""

    batch_tokens: int
    """Most tokens in a batch; on CUDA, ``batches.CUDA_TOKENS`` lets the best number be found."""

    padding_side: Literal["left", "right"]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def longest_packed(self) -> int:
        """The longest text, in tokens, that is packed; 0 where none is."""

    @property
    def pad_id(self) -> int:
        """The id that fills padded rows."""


@torch.inference_mode()
def encode_texts(
    model: BatchEncoder,
    embed: Embed,
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    texts: Sequence[str],
    width: int,
    progress: Progress = no_progress,
) -> Vectors:
    """Return float32 (N, width), a row per text in the order given, not checked for NaN.

    Raises
    ------
    UsageError : ``texts`` is one string, or holds something that is not valid text; or this
        process was forked from one that had computed.
    ModelError : the device has too little memory for one text alone.
    """
    check_texts(texts)
    check_fork("torch", torch.get_num_threads())
    vectors = np.empty((len(texts), width), dtype=np.float32)
    window = max(_LEAST_WINDOW_TEXTS, model.batch_tokens // 4)
    for first, rows in tokenized_ahead(tokenize, texts, window):
        _Line(model, embed, rows).encode(vectors[first : first + len(rows)], progress)
    return vectors


@torch.inference_mode()
def encode_rows(model: BatchEncoder, embed: Embed, rows: TokenRows, width: int) -> Vectors:
    """Return float32 (N, width), as ``encode_texts`` does, for rows of token ids."""
    check_fork("torch", torch.get_num_threads())
    vectors = np.empty((len(rows), width), dtype=np.float32)
    _Line(model, embed, rows).encode(vectors, no_progress)
    return vectors


@dataclass(frozen=True)
class _Flight:
    """A batch that was handed to the device."""

    chosen: list[int]
    tokens: int
    vectors: Arrival
    meter: Meter


class _Line:
    """Batches on their way through the model: one ahead on CUDA, none elsewhere.

    On CUDA the vectors of a batch are waited for only when the next one is under way. A batch
    that does not fit into memory is halved, and so are those after it.
    """

    def __init__(self, model: BatchEncoder, embed: Embed, rows: TokenRows) -> None:
        self.budget = budget_of(model)
        self._model = model
        self._embed = embed
        self._rows = rows
        self._flights: deque[_Flight] = deque()

    def encode(self, out: Vectors, progress: Progress) -> None:
        """Write the vector of each row into ``out``, longest rows first."""
        for chosen, found in self._run_all():
            out[chosen] = found.numpy()
            progress(len(chosen))

    def _run_all(self) -> Found:
        lengths = [len(row) for row in self._rows]
        longest = self._model.longest_packed
        for packs, chosen in mixed_batches(lengths, longest, lambda: self.budget.tokens):
            yield from self.run(chosen, packs)
        yield from self.land(0)

    def run(self, chosen: list[int], packs: bool) -> Found:
        """Hand texts to the device, packed or padded, and yield what arrives meanwhile."""
        rows = [self._rows[index] for index in chosen]
        longest = max(map(len, rows))
        tokens = sum(map(len, rows)) if packs else longest * len(rows)
        try:
            self._launch(chosen, rows, tokens, packs)
            fitted = True
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            fitted = False  # handled below, where the error holds no memory any more
        if fitted:
            yield from self.land(1 if self._model.device.type == "cuda" else 0)
            return
        yield from self.land(0)
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(chosen) == 1:
            raise ModelError(
                f"One text of {longest} tokens does not fit into the memory of "
                f"{self._model.device}, not even alone. Lower max_tokens, or use another device."
            )
        self.budget.shrink(tokens)
        half = len(chosen) // 2
        for part in (chosen[:half], chosen[half:]):
            yield from self.run(part, packs)

    def land(self, most: int) -> Found:
        """Yield the vectors of batches until ``most`` are still under way."""
        while len(self._flights) > most:
            flight = self._flights.popleft()
            vectors = flight.vectors.wait()
            self.budget.record(flight.tokens, flight.meter.seconds, flight.meter.used_bytes)
            yield flight.chosen, vectors

    def _launch(self, chosen: list[int], rows: TokenRows, tokens: int, packs: bool) -> None:
        model = self._model
        batch = (
            PackedBatch.of(rows, model.device)
            if packs
            else PaddedBatch.of(rows, model.device, model.pad_id, model.padding_side)
        )
        meter = Meter(model.device)
        found = Arrival(self._embed(batch))
        meter.stop()
        self._flights.append(_Flight(chosen, tokens, found, meter))


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
