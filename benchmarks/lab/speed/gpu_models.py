"""Decoders and token ids for the GPU comparisons, and what a forward pass computes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Timer

from embedder import Embedder, VariantSpec
from embedder.engine.backbone import Backbone
from embedder.engine.batches import budget_of, pad_batch
from embedder.variants import ATTENTIONS
from retrieval.protocols import Vectors

LONGEST_TOKENS = 2048
NAIVE_BATCH_TEXTS = 64


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


def build_embedder(shape: Shape, device: torch.device, dtype: torch.dtype) -> Embedder:
    """Return mean+causal over random weights of this shape, made on the device itself.

    A text of n words has n tokens; "w5" is token 5.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    library: Any = transformers  # its classes have no types
    config = library.LlamaConfig(
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
    torch.manual_seed(0)
    with torch.device(device):
        model = library.AutoModel.from_config(config, dtype=dtype)
    words = {f"w{number}": number for number in range(2, shape.vocabulary)}
    words |= {"<pad>": 0, "<eos>": 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<eos>"
    )
    spec = VariantSpec(
        base=shape.name, pooling="mean", attention="causal", max_tokens=LONGEST_TOKENS
    )
    model = model.eval().requires_grad_(False)
    backbone = Backbone(model, made, ATTENTIONS["causal"], "benchmark", shape.name)
    return Embedder(spec, backbone, name=shape.name)


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
def encode_naively(embedder: Embedder, rows: Sequence[Sequence[int]]) -> Vectors:
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
    """Return FLOP/s of the fastest of square matrix products, each a median over a second."""
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        timer = Timer("torch.mm(left, right)", globals={"left": left, "right": right})
        best = max(best, 2 * size**3 / timer.blocked_autorange(min_run_time=1.0).median)
    return best
