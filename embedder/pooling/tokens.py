"""Parameter-free poolings: (B, T, D) float32 states and a (B, T) bool mask to (B, D) float32.

True in the mask marks a real token; padding may stand on either side. A row has at least one
real token.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["last_token", "maximum", "mean", "weighted_mean"]


def last_token(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each row's last real token."""
    tokens = mask.shape[1]
    last = tokens - 1 - mask.int().flip(1).argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), last]


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over each row's real tokens."""
    return _weighted(states, mask, mask.to(states.dtype))


def weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean with weights 1, 2, ..., n over the n real tokens (SGPT, arXiv 2202.08904).

    Under causal attention later tokens have seen more of the text, so they weigh more.
    """
    return _weighted(states, mask, mask.cumsum(dim=1).to(states.dtype))


def maximum(states: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value in each coordinate over the real tokens."""
    return states.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)


def _weighted(states: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Average with weights (B, T); padding may hold NaN, so it is replaced, not multiplied."""
    real = states.masked_fill(~mask.unsqueeze(-1), 0.0)
    weights = weights.masked_fill(~mask, 0.0)
    share = weights / weights.sum(dim=1, keepdim=True)
    return torch.einsum("btd,bt->bd", real, share)
