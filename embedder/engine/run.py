"""The loop that takes token ids through a model, batch by batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from embedder.engine.batches import packed_batches, token_batches, tokenized_ahead
from embedder.engine.checks import check_texts
from embedder.engine.compiling import LayerCompiler
from embedder.engine.packing import PackedBatch
from embedder.text import pad_batch
from retrieval.protocols import Progress, Vectors

__all__ = ["EngineSettings", "encode_texts", "run_batches"]

_LEAST_WINDOW_TEXTS = 1024

Rows = Sequence[Sequence[int]]

# A model attends either packed or padded at any one time, and one forward fills all cores.
_one_at_a_time = threading.Lock()


class EngineSettings(Protocol):
    """What the loop reads of an Embedder."""

    batch_tokens: int
    padding_side: Literal["left", "right"]

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def longest_packed(self) -> int:
        """Texts of up to so many tokens go packed; 0 for none."""

    @property
    def pad_id(self) -> int:
        """The id that fills padded rows."""

    @property
    def compiler(self) -> LayerCompiler | None:
        """What may compile the layers; None where nothing may."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return vectors of padded ids and mask, both (B, T) int64."""

    def forward_packed(self, batch: PackedBatch) -> Tensor:
        """Return vectors of packed texts."""


@torch.inference_mode()
def encode_texts(
    model: EngineSettings,
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    texts: Sequence[str],
    width: int,
    progress: Progress | None = None,
) -> Vectors:
    """Return float32 (N, width), a row per text in the order given, not checked for NaN.

    Raises
    ------
    UsageError : ``texts`` is one string, or holds something that is not valid text.
    """
    check_texts(texts)
    vectors = np.empty((len(texts), width), dtype=np.float32)
    window = max(_LEAST_WINDOW_TEXTS, model.batch_tokens // 4)
    for first, rows in tokenized_ahead(tokenize, texts, window):
        for chosen, found in run_batches(model, rows, len(texts) - first - len(rows)):
            vectors[[first + index for index in chosen]] = found.numpy()
            if progress is not None:
                progress(len(chosen))
    return vectors


def run_batches(
    model: EngineSettings, rows: Rows, texts_after: int = 0
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices of texts, their vectors (B, D) on the CPU), longest texts first.

    Parameters
    ----------
    rows : token ids, at least one a text.
    texts_after : how many more texts are known to follow these.
    """
    lengths = [len(row) for row in rows]
    limit = model.longest_packed
    padded = [index for index, length in enumerate(lengths) if length > limit]
    packable = [index for index, length in enumerate(lengths) if length <= limit]
    for places in token_batches([lengths[index] for index in padded], model.batch_tokens):
        chosen = [padded[place] for place in places]
        yield chosen, _run_padded(model, [rows[index] for index in chosen])
    left = sum(lengths[index] for index in packable)
    after = round(texts_after * left / max(1, len(packable)))
    for places in packed_batches([lengths[index] for index in packable], model.batch_tokens):
        chosen = [packable[place] for place in places]
        yield chosen, _run_packed(model, [rows[index] for index in chosen], left + after)
        left -= sum(lengths[index] for index in chosen)


def _run_padded(model: EngineSettings, rows: Rows) -> Tensor:
    ids, mask = pad_batch(rows, model.pad_id, model.padding_side)
    with _one_at_a_time:
        return model.forward(ids.to(model.device), mask.to(model.device)).cpu()


def _run_packed(model: EngineSettings, rows: Rows, tokens_left: int) -> Tensor:
    batch = PackedBatch.of(rows, model.device)
    compiler = model.compiler
    with _one_at_a_time:
        if compiler is None:
            return model.forward_packed(batch).cpu()
        compiler.consider(tokens_left)
        start = time.perf_counter()
        with compiler.in_place():
            try:
                found = model.forward_packed(batch).cpu()
            except Exception as error:  # the compiler's backends raise their own kinds
                if not compiler.is_on:
                    raise
                compiler.give_up(error)
                found = None
        if found is None:
            return model.forward_packed(batch).cpu()
        compiler.record(batch.ids.numel(), time.perf_counter() - start)
        return found
