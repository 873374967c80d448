"""Linear layers in 8-bit integers, for CPUs with instructions for them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

__all__ = ["Int8Linear", "RowRounder", "cpu_has_vnni", "quantize_linears"]

_LARGEST = 127.0
_VNNI = ("avx512_vnni", "avx_vnni")
_MOST_TURNED = 64


class RowRounder:
    """Turns the inputs of int8 layers, and rounds them to int8 with one scale per token.

    A few of a token's inputs are often 20 times as large as the rest, which would then be rounded
    to a few steps. Multiplied by a Hadamard matrix, in blocks of up to 64 inputs, the large ones
    are spread over their block. Weights are turned likewise, and since the matrix is orthogonal
    the products stay the same (Ashkboos et al. 2024, "QuaRot", arXiv 2404.00456).

    Layers that share a rounder, such as those of queries, keys and values, have an input rounded
    once: the last one is kept, with its result. It must not be changed in place meanwhile.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, states: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, in) int8 for (..., in) float32, and the scale of each row, (N, 1) float32."""
        if torch.compiler.is_compiling():  # the compiler sees by itself what is computed twice
            return _turn_and_round(states.flatten(0, -2), turn)
        last = self._last
        if last is None or last[0] is not states:
            last = (states, *_turn_and_round(states.flatten(0, -2), turn))
            self._last = last
        return last[1], last[2]


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale per output, and inputs rounded per token.

    Both are rounded to the nearest of -127 to 127, symmetric around 0; products are summed in
    int32. Returns float32; bias is added in float32.

    Parameters
    ----------
    linear : the layer to take the place of; its weights are not kept.
    rounder : rounds the inputs; layers with the same input share one.
    """

    weight: Tensor
    scale: Tensor
    turn: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, rounder: RowRounder | None = None) -> None:
        super().__init__()
        turn = _hadamard(_block_of(linear.in_features))
        with torch.no_grad():
            weight, scale = _turn_and_round(linear.weight.float(), turn)
        self.rounder = rounder or RowRounder()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T)
        self.register_buffer("turn", turn)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out) float32 for (..., in) float32."""
        rows, scale = self.rounder(states, self.turn)
        summed = torch._int_mm(rows, self.weight.T)
        found = summed.float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            found.add_(self.bias)
        return found.view(*states.shape[:-1], self.out_features)


def quantize_linears(layers: nn.ModuleList) -> int:
    """Put Int8Linear in the place of all linear layers, and return of how many."""
    found = [
        (parent, name, child)
        for parent in layers.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    rounder = RowRounder()
    for parent, name, child in found:
        setattr(parent, name, Int8Linear(child, rounder))
    return len(found)


def cpu_has_vnni() -> bool:
    """Whether this CPU multiplies int8 vectors in one instruction (AVX512-VNNI or AVX-VNNI)."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # torch before 2.9
        return bool(torch.cpu._is_vnni_supported())
    found = capabilities()
    return any(bool(found.get(name)) for name in _VNNI)


def _block_of(width: int) -> int:
    """Return the largest power of two, up to 64, that divides the width."""
    block = 1
    while block < _MOST_TURNED and width % (2 * block) == 0:
        block *= 2
    return block


@cache
def _hadamard(size: int) -> Tensor:
    """Return the orthogonal Hadamard matrix of a power of two, (size, size) float32."""
    if size == 1:
        return torch.ones(1, 1)
    half = _hadamard(size // 2)
    return torch.cat([torch.cat([half, half], 1), torch.cat([half, -half], 1)]) / 2**0.5


def _turn_and_round(rows: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``_round_rows`` does of (N, in), each block times the matrix (block, block)."""
    if len(turn) > 1:
        rows = (rows.reshape(-1, len(turn)) @ turn).view(rows.shape)
    return _round_rows(rows)


def _round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, in) as int8 and what a row is to be multiplied with, (N, 1) float32."""
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12).div_(_LARGEST)
    return values.mul(scale.reciprocal()).round_().to(torch.int8), scale
