"""Several embedders over one base: one forward pass, a vector from each.

Poolings differ in what they make of the base's states, not in the states. Where base, attention,
prompts and lengths are the same, a text goes through the base once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.batches import PaddedBatch
from embedder.engine.packing import PackedBatch
from embedder.engine.run import encode_texts
from embedder.engine.text import check_finite
from embedder.pooling import POOLINGS
from embedder.variants import VariantSpec
from retrieval.errors import UsageError
from retrieval.protocols import Vectors

_OWN = ("pooling", "pooling_options", "dimension", "normalize")
"""What two specs may differ in and still read the same states."""


def can_share(one: VariantSpec, other: VariantSpec) -> bool:
    """Return whether two untrained variants put the same tokens through the same base."""
    templates = {
        (pooling.template, pooling.appends_eos)
        for pooling in (POOLINGS[one.pooling], POOLINGS[other.pooling])
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


def encode_together(
    embedders: Sequence[Embedder], texts: Sequence[str], side: Literal["query", "document"]
) -> list[Vectors]:
    """Return float32 (N, D) of each embedder, as its own encoding gives them to 1e-5.

    Parameters
    ----------
    embedders : over one backbone; the first decides the batches.

    Raises
    ------
    UsageError : they have not one backbone, or their specs cannot share a pass.
    UsageError, ModelError : as ``Embedder.encode_queries``.
    """
    first = embedders[0]
    for other in embedders[1:]:
        if other.backbone is not first.backbone or not can_share(first.spec, other.spec):
            raise UsageError(
                f"{first.name} and {other.name} cannot share a forward pass: base, attention, "
                f"prompts and lengths must be the same, and the loaded base one object."
            )
    layers = frozenset(layer for one in embedders for layer in one.layers_read)

    def embed(batch: PackedBatch | PaddedBatch) -> Tensor:
        states = first.backbone.read(batch, layers)
        return torch.cat([one.pool(states, batch) for one in embedders], dim=1)

    prompt = first.spec.query_prompt if side == "query" else first.spec.document_prompt
    widths = [one.dimension for one in embedders]
    joined = encode_texts(first, embed, partial(first.tokenize, prompt=prompt), texts, sum(widths))
    found = [part.copy() for part in np.split(joined, np.cumsum(widths)[:-1], axis=1)]
    for one, vectors in zip(embedders, found, strict=True):
        check_finite(vectors, texts, one.name)
    return found
