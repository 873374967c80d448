"""Llama shapes with random weights, texts of known length, and what a forward pass computes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from embedder import Embedder, VariantSpec
from embedder.attention import get_attention
from embedder.engine.backbone import Backbone
from embedder.models.bases import BASES
from embedder.models.cache import converted_folder, is_converted
from retrieval.errors import UsageError

__all__ = ["SHAPES", "TINY", "Shape", "build_embedder", "find_base", "make_tokenizer", "make_texts"]

LONGEST_TOKENS = 2048


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

        Two a weight and token; and for attention, of which a causal mask needs half, two products
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
            raise UsageError(f"{asked} has no config.json; a transformers folder is accepted.")
        return asked
    base = BASES.get(name)
    if base is None or not is_converted(base.gguf_sha256):
        return None
    return converted_folder(base.gguf_sha256)


def build_embedder(
    shape: Shape, device: torch.device, dtype: torch.dtype, base: Path | None = None
) -> Embedder:
    """Return mean+causal over the shape, its weights random or read from ``base``.

    Random weights are made on the device itself. The tokenizer is ``make_tokenizer``'s.
    """
    model = _load(base, device, dtype) if base else _make(shape, device, dtype)
    spec = VariantSpec(
        base=shape.name, pooling="mean", attention="causal", max_tokens=LONGEST_TOKENS
    )
    backbone = Backbone(
        model.eval().requires_grad_(False),
        make_tokenizer(int(model.config.vocab_size)),
        get_attention("causal"),
        "benchmark",
        shape.name,
    )
    return Embedder(spec, backbone, name=shape.name)


def _make(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    import transformers

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
        return library.AutoModel.from_config(config, dtype=dtype)


def _load(base: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(base, dtype=dtype, use_safetensors=True).to(device)


def make_tokenizer(vocabulary: int) -> Any:
    """Return a tokenizer by which a text of n words has n tokens; "w5" is token 5."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    library: Any = transformers
    words = {"<pad>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<eos>"
    )


def make_texts(lengths: Sequence[int], vocabulary: int) -> list[str]:
    """Return texts of so many tokens each, EOS at their end included, of random words."""
    generator = random.Random(0)
    return [
        " ".join(f"w{generator.randrange(2, vocabulary)}" for _ in range(length - 1))
        for length in lengths
    ]
