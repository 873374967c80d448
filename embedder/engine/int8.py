"""Linear layers in 8-bit integers, for CPUs with instructions for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from embedder.engine.hadamard import block_of, hadamard

_LARGEST = 127.0


def cpu_has_vnni() -> bool:
    """Whether torch multiplies int8 vectors by this CPU's own instructions (AVX512-VNNI).

    On others ``torch._int_mm`` is a plain loop, a hundred times slower. A CPU that torch was told
    to use AVX2 of counts as one without.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:  # torch before 2.9
        return bool(torch.cpu._is_vnni_supported())
    return bool(capabilities().get("avx512_vnni"))


class Product(Protocol):
    """What multiplies int8 rows with int8 weights; sums are exact, so all give the same."""

    def pack(self, weight: Tensor) -> Tensor:
        """Return weights (out, in) int8 as ``__call__`` takes them, (out, in) as well."""

    def __call__(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Return (N, out) int32 for rows (N, in) int8."""


class TorchProduct:
    """torch's own, for CPUs with VNNI."""

    def pack(self, weight: Tensor) -> Tensor:
        """Return the weights as they are."""
        return weight

    def __call__(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Return (N, out) int32 for rows (N, in) int8."""
        return torch._int_mm(rows, weight.T)


TORCH = TorchProduct()


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale per output, and inputs rounded per token.

    Both are rounded to the nearest of -127 to 127, symmetric around 0; products are summed in
    int32. Returns float32; bias is added in float32.

    A few of a token's inputs are often 20 times as large as the rest, which would then be rounded
    to a few steps. Multiplied by a Hadamard matrix, in blocks of up to 64 inputs, the large ones
    are spread over their block. Weights are rotated likewise, and since the matrix is orthogonal
    the products stay the same (Ashkboos et al. 2024, "QuaRot", arXiv 2404.00456).

    Parameters
    ----------
    weight : (out, in) int8, rotated and packed.
    scale : of each output, (1, out) float32.
    bias : (out,) float32, or None.
    rotation : the matrix that inputs are rotated by, (block, block) float32.
    product : what multiplies.
    """

    weight: Tensor
    scale: Tensor
    rotation: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        rotation: Tensor,
        product: Product,
    ) -> None:
        super().__init__()
        self.product = product
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("rotation", rotation)
        self.register_buffer("bias", bias)

    @classmethod
    def of(
        cls, linear: nn.Linear, rotated: int | None = None, product: Product = TORCH
    ) -> Int8Linear:
        """Return the int8 layer that replaces this one, whose weights are not kept.

        ``rotated`` is the size of the blocks in which inputs come rotated already.
        """
        rotation = _hadamard(rotated or block_of(linear.in_features))
        bias = None if linear.bias is None else linear.bias.detach().float()
        with torch.no_grad():
            weight, scale = _rotate_and_round(linear.weight.float(), rotation)
        rotation = rotation if rotated is None else _hadamard(1)
        return cls(product.pack(weight), scale.T, bias, rotation, product)

    def forward(self, states: Tensor) -> Tensor:
        """Return (..., out) float32 for (..., in) float32."""
        rows, scale = _rotate_and_round(states.flatten(0, -2), self.rotation)
        found = self.multiply(rows).float().mul_(scale).mul_(self.scale)
        if self.bias is not None:
            found.add_(self.bias)
        return found.view(*states.shape[:-1], self.out_features)

    def multiply(self, rows: Tensor) -> Tensor:
        """Return sums of products, (N, out) int32, for rounded rows (N, in) int8."""
        return self.product(rows, self.weight)


def find_linears(layers: Iterable[nn.Module]) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return all linear layers inside of these: the module that holds it, its name there, itself.

    Subclasses, such as what LoRA puts around one, are not among them.
    """
    return [
        (parent, name, child)
        for layer in layers
        for parent in layer.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]


def quantize_linears(
    layers: Iterable[nn.Module], rotated: Mapping[nn.Linear, int], product: Product
) -> None:
    """Replace all linear layers inside of these by Int8Linear.

    ``rotated`` are those whose inputs come rotated already, each with the size of the blocks.
    """
    for parent, name, child in find_linears(layers):
        setattr(parent, name, Int8Linear.of(child, rotated.get(child), product))


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
    return Int8Linear(
        weight, scale, torch.cat(biases) if biases else None, first.rotation, first.product
    )


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


def _rotate_and_round(rows: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, in) rounded as by ``_round_rows``, each block times the matrix first."""
    if len(rotation) > 1:
        rows = (rows.reshape(-1, len(rotation)) @ rotation).view(rows.shape)
    return _round_rows(rows)


def _round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, in) as int8, and the scale of each row, (N, 1) float32."""
    values = values.float()  # autocast may have made bfloat16 of them, which rounds 127 up to 128
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-12).div_(_LARGEST)
    return values.mul(scale.reciprocal()).round_().to(torch.int8), scale
