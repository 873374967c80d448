"""Dropout that draws its mask quickly on a CPU.

torch draws a CPU's dropout mask on one thread, a 64-bit word for every element. Before a LoRA
layer of a small model that costs more than the layer. Here each word decides four elements.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["WordDropout"]

_LEVELS = 1 << 16  # what a quarter of a word can be


class WordDropout(nn.Dropout):
    """``nn.Dropout`` that takes 16 random bits an element on a CPU; elsewhere torch's own.

    The rate is rounded to a multiple of 1 / 65,536, and kept elements are scaled by that rounded
    rate, so that the mean stays what it was. The bits come from torch's generator: the same random
    state gives the same mask.

    Parameters
    ----------
    p : the share of elements set to zero, 0 to below 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input, floating point of any shape, with elements dropped while training."""
        if not self.training or self.p == 0 or input.device.type != "cpu" or self.inplace:
            return super().forward(input)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        with torch.no_grad():
            words = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
            quarters = words.view(torch.int16)[: input.numel()].view(input.shape)
            mask = (quarters >= dropped - _LEVELS // 2).to(input.dtype)
            mask.mul_(_LEVELS / (_LEVELS - dropped))
        return input * mask
