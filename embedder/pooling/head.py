"""The layers that a published model has after its pooling, and their weights in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.errors import ModelError

__all__ = ["HeadLayer", "Headed", "head_tensors"]

_NAMES = {"Dense": "linear.", "LayerNorm": "norm."}
"""What stands before the names of a layer's weights in its file, by the layer's kind."""


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """One layer after the pooling, as a published model has it.

    Attributes
    ----------
    path : the subfolder of the base that holds its weights; empty where they are the pooling's.
    kind : "Dense", "LayerNorm" or "Normalize".
    reads, width : how many numbers go in and come out.
    bias, activation : of a Dense; the activation is a class of torch.nn.
    space : the digest of the fingerprint of the model whose vectors it was trained to give, so that
        these can be compared; empty for a space of its own.
    """

    path: str
    kind: Literal["Dense", "LayerNorm", "Normalize"]
    reads: int
    width: int
    bias: bool = True
    activation: Literal["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"] = "Identity"
    space: str = ""


class _Normalize(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


class Headed(nn.Module):
    """A pooling followed by layers, Dense and others, as sentence-transformers computes them.

    Parameters
    ----------
    inner : the pooling, (B, S, D) float32 and (B, S) bool to (B, D) float32.
    """

    def __init__(self, inner: nn.Module, layers: Sequence[HeadLayer]) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Sequential(*(_build(layer) for layer in layers))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, width of the last layer) float32."""
        vectors: Tensor = self.head(self.inner(states, mask))
        return vectors

    def fill(self, tensors: Mapping[str, Tensor], base: str) -> None:
        """Copy the weights that ``head_tensors`` gives, or raise ModelError."""
        own = dict(self.head.named_parameters())
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != found:
            raise ModelError(
                f"{base}: the weights of the layers after its pooling are {found}; its "
                f"configuration says {shapes}. Copy the folder again."
            )
        for name, parameter in own.items():
            parameter.data.copy_(tensors[name])


def _build(layer: HeadLayer) -> nn.Module:
    if layer.kind == "Normalize":
        return _Normalize()
    if layer.kind == "LayerNorm":
        return nn.LayerNorm(layer.width)
    linear = nn.Linear(layer.reads, layer.width, bias=layer.bias)
    activation: Any = getattr(nn, layer.activation)
    return nn.Sequential(linear, activation())


def head_tensors(
    layers: Sequence[HeadLayer], read: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the weights of the layers as ``Headed.fill`` takes them.

    Parameters
    ----------
    read : what the file of each layer holds, by the layer's path.
    """
    found = {}
    for place, layer in enumerate(layers):
        inner = f"{place}.0." if layer.kind == "Dense" else f"{place}."
        for name, tensor in read.get(layer.path, {}).items():
            found[inner + name.removeprefix(_NAMES[layer.kind])] = tensor.float()
    return found
