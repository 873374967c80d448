"""Linear layers in 8-bit integers, for CPUs that multiply them exactly and sooner than floats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor, nn

from embedder.engine.hadamard import block_of, hadamard

__all__ = [
    "Int8Linear",
    "join_linears",
    "quantize_linears",
    "rotate_outputs",
    "weight_limit",
]

_LARGEST = 127


@cache
def weight_limit() -> int | None:
    """Return the largest whole number that a weight is rounded to; None where int8 is no gain.

    127 on CPUs with VNNI. Others with AVX2 sum the products of two neighbours in 16 bits, which
    weights of up to 127 overflow; up to 63 never do, which is how such a CPU is told. Up to 80
    takes two such weights beside two of the largest inputs, and errs less than the steps of 63
    would: smollm2-135m has cosines of 0.9986 to float32 on average, against 0.9978 with 63 and
    0.9933 with 127.
    """
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    return next(
        (limit for largest, limit in ((_LARGEST, _LARGEST), (63, 80)) if _is_exact(largest)), None
    )


def _is_exact(largest: int) -> bool:
    """Whether products of int8 rows are right with weights of this size, all signs alike."""
    rows, weights = (torch.full((64, 256), each, dtype=torch.int8) for each in (_LARGEST, largest))
    rows[1::2], weights[1::2] = -_LARGEST, -largest
    return torch.equal(torch._int_mm(rows, weights.T).long(), rows.long() @ weights.long().T)


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale per output, and inputs rounded per token.

    Both are rounded to whole numbers symmetric around 0, inputs to -127 to 127; products are summed
    in int32. Returns float32; bias is added in float32.

    A few of a token's inputs are often 20 times as large as the rest, which would then be rounded
    to a few steps. Multiplied by a Hadamard matrix, in blocks of up to 64 inputs, the large ones
    are spread over their block. Weights are rotated likewise, and since the matrix is orthogonal
    the products stay the same (Ashkboos et al. 2024, "QuaRot", arXiv 2404.00456).

    Parameters
    ----------
    weight : (out, in) int8, rotated.
    scale : of each output, (1, out) float32.
    bias : (out,) float32, or None.
    rotation : the matrix that inputs are rotated by, (block, block) float32.
    """

    weight: Tensor
    scale: Tensor
    rotation: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, rotation: Tensor
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("rotation", rotation)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear, limit: int = _LARGEST, rotated: int | None = None) -> Int8Linear:
        """Return the int8 layer that replaces this one, whose weights are not kept.

        Weights are rounded to ``limit`` at most; ``rotated`` is the size of the blocks in which
        inputs come rotated already.
        """
        rotation = _hadamard(rotated or block_of(linear.in_features))
        bias = None if linear.bias is None else linear.bias.detach().float()
        with torch.no_grad():
            weight, scale = _rotate_and_round(linear.weight.float(), rotation, limit)
        rotation = rotation if rotated is None else _hadamard(1)
        return cls(weight, scale.T, bias, rotation)

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out) float32 for (..., in) float32."""
        rows, scale = _rotate_and_round(states.flatten(0, -2), self.rotation)
        summed = torch._int_mm(rows, self.weight.T)
        found = summed.float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            found.add_(self.bias)
        return found.view(*states.shape[:-1], self.out_features)


def quantize_linears(
    layers: Iterable[nn.Module],
    limit: int = _LARGEST,
    rotated: Mapping[nn.Linear, int] = MappingProxyType({}),
) -> int:
    """Replace all linear layers inside of these by Int8Linear; return how many there were.

    Weights are rounded to ``limit`` at most. ``rotated`` are the layers whose inputs come rotated
    already, each with the size of the blocks.
    """
    found = [
        (parent, name, child)
        for layer in layers
        for parent in layer.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in found:
        setattr(parent, name, Int8Linear.of(child, limit, rotated.get(child)))
    return len(found)


def join_linears(parts: Sequence[Int8Linear]) -> Int8Linear:
    """Return one layer that gives the outputs of several with one input, side by side.

    Each part still works alone, on the same memory. All have a bias, or none.
    """
    first = parts[0]
    biases = [part.bias for part in parts if part.bias is not None]
    weight = torch.cat([part.weight for part in parts])
    scale = torch.cat([part.scale for part in parts], dim=1)
    start = 0
    for part in parts:  # views, so that no weight is in memory twice
        own = slice(start, start + part.out_features)
        part.weight, part.scale = weight[own], scale[:, own]
        start = own.stop
    return Int8Linear(weight, scale, torch.cat(biases) if biases else None, first.rotation)


@torch.no_grad()
def rotate_outputs(linear: nn.Linear, block: int) -> None:
    """Change a layer's weights so that its outputs come rotated, ``block`` at a time."""
    rotation = _hadamard(block)
    for weights in (linear.weight, linear.bias):
        if weights is not None:
            outputs = weights.view(-1, block, *weights.shape[1:])
            weights.copy_(torch.einsum("ab,nb...->na...", rotation, outputs).reshape(weights.shape))


@cache
def _hadamard(size: int) -> Tensor:
    """Return the Hadamard matrix of a power of two, (size, size) float32."""
    return torch.from_numpy(hadamard(size))


def _rotate_and_round(
    rows: Tensor, rotation: Tensor, largest: int = _LARGEST
) -> tuple[Tensor, Tensor]:
    """Return (N, in) rounded as by ``_round_rows``, each block times the matrix first."""
    if len(rotation) > 1:
        rows = (rows.reshape(-1, len(rotation)) @ rotation).view(rows.shape)
    return _round_rows(rows, largest)


def _round_rows(values: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Return (N, in) as int8, and the scale of each row, (N, 1) float32."""
    values = values.float()  # autocast may have made bfloat16 of them, which rounds 127 up to 128
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12).div_(largest)
    return values.mul(scale.reciprocal()).round_().to(torch.int8), scale
