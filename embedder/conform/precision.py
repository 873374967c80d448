"""Ways to round a model's weights and numbers, as other engines do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["PRECISIONS"]

_BLOCK = 32


def _round_blocks(weights: Tensor, levels: int) -> Tensor:
    """Return weights rounded in blocks of 32 with one scale each, as GGUF files hold them."""
    if weights.dim() != 2 or weights.shape[1] % _BLOCK:
        return weights
    blocks = weights.reshape(-1, _BLOCK)
    scale = (blocks.abs().amax(dim=1, keepdim=True) / levels).clamp(min=1e-30)
    return ((blocks / scale).round() * scale).reshape(weights.shape)


def _round_weights(levels: int) -> Callable[[nn.Module], nn.Module]:
    def change(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(_round_blocks(parameter, levels))
        return model

    return change


PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float16": lambda model: model.to(torch.float16),
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "8-bit weights": _round_weights(127),
    "4-bit weights": _round_weights(7),
}
