"""A student that ends in the projection, a Dense layer to the teacher's width."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from embedder.embedder import Embedder
from embedder.pooling.head import Headed, HeadLayer
from embedder.training.distillation.projection import make_projection

__all__ = ["kept_layer", "with_projection", "without_projection"]


def with_projection(embedder: Embedder, width: int, space: str) -> Embedder:
    """Return the embedder with a Dense layer of zeros from its vectors to (N, width).

    Parameters
    ----------
    space : the digest of the teacher's fingerprint.
    """
    reads = embedder.dimension
    layer = HeadLayer(path="", kind="Dense", reads=reads, width=width, bias=False, space=space)
    found = Embedder(replace(embedder.spec, head=(layer,)), embedder.backbone)
    kept = kept_layer(found)
    kept.weight.data.copy_(make_projection(embedder.dimension, width).weight)
    return found


def kept_layer(embedder: Embedder) -> nn.Linear:
    """Return the Dense layer that ``with_projection`` added."""
    headed = embedder.pooling
    assert isinstance(headed, Headed)
    linear = headed.head[0][0]  # type: ignore[index]
    assert isinstance(linear, nn.Linear)
    return linear


def without_projection(embedder: Embedder) -> Embedder:
    """Return the embedder as it was before the layer, on the same weights."""
    headed = embedder.pooling
    assert isinstance(headed, Headed)
    twin = Embedder(replace(embedder.spec, head=(), normalize=True), embedder.backbone)
    twin.pooling = headed.inner
    return twin
