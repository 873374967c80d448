"""Decoders and token ids for the GPU comparisons, and what a forward pass computes."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedder import Embedder, VariantSpec
from embedder.engine.backbone import Backbone
from embedder.engine.batches import budget_of, pad_batch
from embedder.models.bases import BASES, converted_folder, is_converted
from embedder.variants import get_attention
from retrieval.errors import UsageError
from retrieval.protocols import Vectors

__all__ = [
    "LONGEST_TOKENS",
    "SHAPES",
    "TINY",
    "Shape",
    "build_embedder",
    "encode_naively",
    "find_base",
    "make_texts",
    "matmul_peak",
    "mixed_lengths",
    "random_rows",
    "settle_budget",
]

LONGEST_TOKENS = 2048
NAIVE_BATCH_TEXTS = 64
_PEAK_RUNS = 10

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama decoder."""

    name: str
    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights of the linear layers, which every token is multiplied with; no embeddings."""
        head = self.width // self.heads
        attention = 2 * self.width * head * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    def flops(self, lengths: Sequence[int]) -> float:
        """Return the floating-point operations of one causal pass over texts of these lengths.

        Two per weight and token. Attention, of which a causal mask needs half, takes two products
        of n x n / 2 numbers by the width of the heads.
        """
        pairs = sum(length * length for length in lengths) / 2
        return 2.0 * self.layer_parameters * sum(lengths) + 4.0 * pairs * self.width * self.layers


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("smollm2-135m", 576, 1536, 30, 9, 3, 49_152),
        Shape("llama-0.5b", 1024, 4096, 28, 16, 8, 49_152),
        Shape("llama-7b", 4096, 11_008, 32, 32, 32, 32_000),
    )
}
TINY = {
    shape.name: replace(shape, width=24, inner=32, layers=2, heads=3, key_heads=1, vocabulary=200)
    for shape in SHAPES.values()
}
"""The same names, small enough for a CPU."""


def find_base(name: str, asked: Path | None) -> Path | None:
    """Return the folder asked for, or a built-in base that is in the cache; None for neither.

    Raises
    ------
    UsageError : the folder asked for holds no config.json.
    """
    if asked is not None:
        if not (asked / "config.json").is_file():
            raise UsageError(f"{asked} has no config.json; expected a transformers folder.")
        return asked
    base = BASES.get(name)
    if base is None or not is_converted(base.gguf_sha256):
        return None
    return converted_folder(base.gguf_sha256)


def build_embedder(
    shape: Shape, device: torch.device, dtype: torch.dtype, base: Path | None = None
) -> Embedder:
    """Return mean+causal over the shape, its weights random or read from ``base``.

    Random weights are made on the device itself. A text of n words has n tokens; "w5" is token 5.
    """
    import transformers

    library: Any = transformers  # its classes have no types
    if base is not None:
        model = library.AutoModel.from_pretrained(base, dtype=dtype, use_safetensors=True)
        model = model.to(device)
    else:
        torch.manual_seed(0)
        with torch.device(device):
            model = library.AutoModel.from_config(_llama_config(library, shape), dtype=dtype)
    spec = VariantSpec(
        base=shape.name, pooling="mean", attention="causal", max_tokens=LONGEST_TOKENS
    )
    backbone = Backbone(
        model.eval().requires_grad_(False),
        _make_tokenizer(library, int(model.config.vocab_size)),
        get_attention("causal"),
        "benchmark",
        shape.name,
    )
    return Embedder(spec, backbone, name=shape.name)


def _llama_config(library: Any, shape: Shape) -> Any:
    return library.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=LONGEST_TOKENS,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )


def _make_tokenizer(library: Any, vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<eos>"
    )


def make_texts(lengths: Sequence[int], vocabulary: int) -> list[str]:
    """Return texts of random words with so many tokens each, including EOS at the end."""
    generator = random.Random(0)
    return [
        " ".join(f"w{generator.randrange(2, vocabulary)}" for _ in range(length - 1))
        for length in lengths
    ]


def random_rows(lengths: Sequence[int], embedder: Embedder) -> list[list[int]]:
    """Return token ids of texts of these lengths."""
    model: Any = embedder.backbone.model
    vocabulary = int(model.config.vocab_size)
    ids = np.random.default_rng(0).integers(2, vocabulary, sum(lengths)).tolist()
    ends = np.cumsum(lengths).tolist()
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def mixed_lengths(tokens: int, longest: int) -> list[int]:
    """Return lengths that add up to about so many tokens: many short texts and few long ones.

    Log-normal with a median of 64 tokens (fewer if the longest is short), shuffled.
    """
    generator = random.Random(0)
    middle = math.log(min(64, longest / 4))
    found, total = [], 0
    while total < tokens:
        found.append(min(longest, max(4, round(generator.lognormvariate(middle, 1.1)))))
        total += found[-1]
    return found


@torch.inference_mode()
def encode_naively(embedder: Embedder, rows: Rows) -> Vectors:
    """Return the vectors of ``rows`` as transformers in most examples computes them.

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
    """Return the tokens per batch that the embedder finds, after so many seconds at most.

    On a CPU, where there is nothing to find, one batch is run to warm up.
    """
    budget = budget_of(embedder)
    deadline = time.perf_counter() + seconds
    while True:
        length = min(longest, 256)
        texts = max(1, 3 * budget.tokens // length)
        embedder.encode_tokens(random_rows([length] * texts, embedder))
        if budget.is_settled or time.perf_counter() > deadline:
            return budget.tokens


def matmul_peak(device: torch.device, dtype: torch.dtype, sizes: Sequence[int]) -> float:
    """Return FLOP/s of the fastest of square matrix products, each a median of ten runs."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = []
        for _ in range(_PEAK_RUNS + 3):
            synchronize()
            began = time.perf_counter()
            for _ in range(4):
                torch.mm(left, right)
            synchronize()
            seconds.append((time.perf_counter() - began) / 4)
        best = max(best, 2 * size**3 / statistics.median(seconds[3:]))
    return best
