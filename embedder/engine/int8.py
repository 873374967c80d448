"""Linear layers in 8-bit integers, for CPUs with instructions for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Int8Linear", "cpu_has_vnni", "quantize_linears"]

_LARGEST = 127.0
_VNNI = ("avx512_vnni", "avx_vnni")


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale per output, and inputs rounded per token.

    Both are rounded to the nearest of -127 to 127, symmetric around 0; products are summed in
    int32. Returns float32; bias is added in float32.

    Parameters
    ----------
    linear : the layer to take the place of; its weights are not kept.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        with torch.no_grad():
            weight = linear.weight.float()
            rounded, scale = _round_rows(weight)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", rounded)
        self.register_buffer("scale", scale.T)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out) float32 for (..., in) float32."""
        rows, scale = _round_rows(states.flatten(0, -2))
        summed = torch._int_mm(rows, self.weight.T)
        found = summed.float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            found.add_(self.bias)
        return found.view(*states.shape[:-1], self.out_features)


def quantize_linears(layers: nn.ModuleList) -> int:
    """Put Int8Linear in the place of linear layers, and return of how many.

    Those with more inputs than outputs stay float32: the last one of a feed-forward reads a few
    very large values, and rounding per token would lose the rest.
    """
    found = [
        (parent, name, child)
        for parent in layers.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.in_features <= child.out_features
    ]
    for parent, name, child in found:
        setattr(parent, name, Int8Linear(child))
    return len(found)


def cpu_has_vnni() -> bool:
    """Whether this CPU multiplies int8 vectors in one instruction (AVX512-VNNI or AVX-VNNI)."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # torch before 2.9
        return bool(torch.cpu._is_vnni_supported())
    found = capabilities()
    return any(bool(found.get(name)) for name in _VNNI)


def _round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, in) as int8 and what a row is to be multiplied with, (N, 1) float32."""
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12).div_(_LARGEST)
    return torch.round(values / scale).to(torch.int8), scale
