"""Several embedders over one base: one forward pass, a vector from each.

Poolings differ in what they make of the base's states, not in the states. Where base, attention,
prompts and lengths are the same, a text goes through the base once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.packing import PackedBatch
from embedder.engine.run import encode_texts
from embedder.engine.text import check_finite
from embedder.pooling import get_pooling
from embedder.variants import VariantSpec
from retrieval.errors import UsageError
from retrieval.protocols import Vectors

__all__ = ["SharedPass", "can_share"]

_OWN = ("pooling", "pooling_options", "dimension", "normalize")
"""What two specs may differ in and still read the same states."""


def can_share(one: VariantSpec, other: VariantSpec) -> bool:
    """Return whether two untrained variants put the same tokens through the same base."""
    templates = {
        (pooling.template, pooling.appends_eos)
        for pooling in (get_pooling(one.pooling), get_pooling(other.pooling))
    }
    return (
        one.pool_prompt
        and len(templates) == 1
        and all(
            getattr(one, field.name) == getattr(other, field.name)
            for field in fields(VariantSpec)
            if field.name not in _OWN
        )
    )


class SharedPass:
    """Encodes with several embedders over one backbone at once; an ``EngineSettings``.

    Parameters
    ----------
    embedders : the first decides the batches.

    Raises
    ------
    UsageError : they have not one backbone, or their specs cannot share a pass.
    """

    def __init__(self, embedders: Sequence[Embedder]) -> None:
        first = embedders[0]
        for other in embedders[1:]:
            if other.backbone is not first.backbone or not can_share(first.spec, other.spec):
                raise UsageError(
                    f"{first.name} and {other.name} cannot share a forward pass: base, attention, "
                    f"prompts and lengths must be the same, and the loaded base one object."
                )
        self._first = first
        self._embedders = embedders
        self._layers = frozenset(layer for one in embedders for layer in one.layers_read)
        self.batch_tokens = first.batch_tokens
        self.padding_side: Literal["left", "right"] = first.padding_side
        self.device = first.device
        self.pad_id = first.pad_id
        self.longest_packed = first.longest_packed

    def encode(self, texts: Sequence[str], side: Literal["query", "document"]) -> list[Vectors]:
        """Return float32 (N, D) of each embedder, as its own encoding gives them to 1e-5.

        Raises
        ------
        UsageError, ModelError : as ``Embedder.encode_queries``.
        """
        spec = self._first.spec
        prompt = spec.query_prompt if side == "query" else spec.document_prompt
        widths = [one.dimension for one in self._embedders]
        tokenize = partial(self._first.tokenize, prompt=prompt)
        joined = encode_texts(self, tokenize, texts, sum(widths))
        found, start = [], 0
        for one, width in zip(self._embedders, widths, strict=True):
            vectors = joined[:, start : start + width].copy()
            check_finite(vectors, texts, one.name)
            found.append(vectors)
            start += width
        return found

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return all vectors side by side, (B, sum of D), for padded ids and mask (B, T)."""
        states = self._first.backbone.read(ids, mask, self._layers)
        return torch.cat([one.pool(states, mask.bool()) for one in self._embedders], dim=1)

    def forward_packed(self, batch: PackedBatch) -> Tensor:
        """Return the same for packed texts."""
        states = self._first.backbone.read_packed(batch, self._layers)
        return torch.cat([one.pool_packed(states, batch) for one in self._embedders], dim=1)
