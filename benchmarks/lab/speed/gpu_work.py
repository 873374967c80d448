"""What the contestants on a GPU do: the card's own peak, ours, and what others do."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scoring.optional import import_optional
from embedder import Embedder
from embedder.engine.budget import budget_of
from embedder.engine.run import run_batches
from embedder.engine.text import pad_batch
from embedder.environment import quiet_transformers
from retrieval.protocols import Vectors

__all__ = [
    "encode_ids",
    "encode_naively",
    "load_peer",
    "matmul_peak",
    "mixed_lengths",
    "random_rows",
    "settle_budget",
    "time_once",
    "write_base",
]

NAIVE_BATCH_TEXTS = 64
_PEAK_RUNS = 10

Rows = Sequence[Sequence[int]]


def matmul_peak(device: torch.device, dtype: torch.dtype, sizes: Sequence[int]) -> float:
    """Return FLOP/s of the fastest of square matrix products, each a median of ten runs."""
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = []
        for _ in range(_PEAK_RUNS + 3):
            synchronize(device)
            began = time.perf_counter()
            for _ in range(4):
                torch.mm(left, right)
            synchronize(device)
            seconds.append((time.perf_counter() - began) / 4)
        best = max(best, 2 * size**3 / statistics.median(seconds[3:]))
    return best


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def mixed_lengths(tokens: int, longest: int) -> list[int]:
    """Return lengths of about so many tokens in all: many short texts and few long ones.

    Log-normal with a median of 64 tokens (fewer where the longest is short), shuffled.
    """
    generator = random.Random(0)
    middle = math.log(min(64, longest / 4))
    found, total = [], 0
    while total < tokens:
        found.append(min(longest, max(4, round(generator.lognormvariate(middle, 1.1)))))
        total += found[-1]
    return found


@torch.inference_mode()
def encode_ids(embedder: Embedder, rows: Rows) -> Vectors:
    """Return float32 (N, D) as the embedder's own encoding does, without its tokenising."""
    vectors = np.empty((len(rows), embedder.dimension), dtype=np.float32)
    for chosen, found in run_batches(embedder, rows):
        vectors[chosen] = found.numpy()
    return vectors


@torch.inference_mode()
def encode_naively(embedder: Embedder, rows: Rows) -> Vectors:
    """Return the same as transformers in most examples gives it, with the same weights.

    Batches of 64 in input order, padded, all hidden states kept, every batch waited for.
    """
    model: Any = embedder.backbone.model
    found = []
    for start in range(0, len(rows), NAIVE_BATCH_TEXTS):
        ids, mask = pad_batch(rows[start : start + NAIVE_BATCH_TEXTS], embedder.pad_id)
        ids, mask = ids.to(embedder.device), mask.to(embedder.device)
        kept = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        real = mask.unsqueeze(-1).float()
        means = (kept[-1].float() * real).sum(dim=1) / real.sum(dim=1)
        found.append(torch.nn.functional.normalize(means, dim=-1).cpu().numpy())
    return np.concatenate(found)


def settle_budget(embedder: Embedder, longest: int, seconds: float) -> int:
    """Let the embedder find its tokens a batch, for so long at most; return them.

    On a CPU, where there is nothing to find, one batch is run to warm up.
    """
    budget = budget_of(embedder)
    deadline = time.perf_counter() + seconds
    while True:
        length = min(longest, 256)
        texts = max(1, 3 * budget.tokens // length)
        encode_ids(embedder, random_rows([length] * texts, embedder))
        if budget.is_settled or time.perf_counter() > deadline:
            return budget.tokens


def random_rows(lengths: Sequence[int], embedder: Embedder) -> list[list[int]]:
    """Return token ids of texts of these lengths."""
    model: Any = embedder.backbone.model
    vocabulary = int(model.config.vocab_size)
    ids = np.random.default_rng(0).integers(2, vocabulary, sum(lengths)).tolist()
    ends = np.cumsum(lengths).tolist()
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def write_base(embedder: Embedder, folder: Path) -> None:
    """Write the embedder's weights and its tokenizer, which ends texts with EOS, for the peers."""
    from tokenizers.processors import TemplateProcessing

    model: Any = embedder.backbone.model
    tokenizer: Any = embedder.backbone.tokenizer
    with quiet_transformers():
        model.save_pretrained(folder)
    before = tokenizer.backend_tokenizer.post_processor
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = before


def load_peer(folder: Path, device: torch.device, dtype: torch.dtype, longest: int) -> Any:
    """Return mean pooling over the folder's base as a SentenceTransformer.

    Raises
    ------
    MissingDependencyError : sentence-transformers is not installed.
    """
    library = import_optional("sentence_transformers", "Comparing speeds")
    modules = import_optional("sentence_transformers.sentence_transformer.modules", "Comparing")
    with quiet_transformers():
        transformer = modules.Transformer(
            str(folder), max_seq_length=longest, model_kwargs={"dtype": dtype}
        )
        pooling = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
        found: Any = library.SentenceTransformer(
            modules=[transformer, pooling, modules.Normalize()], device=str(device)
        )
    return found


def time_once(run: Callable[[], object]) -> float:
    """Return the seconds of one run, which ends with its result on the CPU."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
