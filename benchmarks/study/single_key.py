"""Attention over a single key is no attention: its softmax is 1 whatever query and key are.

Under causal attention ``last_layer`` (model2 of arXiv 2409.02727) reads the EOS state alone, one
key. So its queries and keys decide nothing and get no gradient; what is left is the value and the
output matrix, the latents through the residual, and the feed-forward: a feed-forward of one
vector, with as many idle weights as query and key hold.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from embedder.pooling.trainable import LatentQueryPooling

__all__ = ["change_without_attention", "idle_parameters"]


def _attention_parts(pooling: LatentQueryPooling) -> list[nn.Module]:
    """Return the parts that only queries and keys go through; the context's norm feeds values."""
    return [pooling.attend.query, pooling.attend.key, pooling.attend.query_norm]


@torch.no_grad()
def change_without_attention(
    pooling: LatentQueryPooling, states: Tensor, mask: Tensor, *, seed: int = 0
) -> float:
    """Return how far the vectors move where query and key weights are drawn anew.

    0 where every text has one key, whatever was trained; more where there are several.

    Parameters
    ----------
    states, mask : (B, S, D) float32 and (B, S) bool, what the pooling reads.
    seed : of the new weights, ten times as large as the usual start.

    Returns
    -------
    The largest change of any coordinate, over the largest coordinate before.
    """
    before = pooling(states, mask)
    other = copy.deepcopy(pooling)
    generator = torch.Generator().manual_seed(seed)
    for part in _attention_parts(other):
        for parameter in part.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(10 * drawn / parameter.shape[-1] ** 0.5)
    after = other(states, mask)
    return float((after - before).abs().max() / before.abs().max())


def idle_parameters(pooling: LatentQueryPooling) -> int:
    """Return how many weights decide nothing where there is one key."""
    return sum(p.numel() for part in _attention_parts(pooling) for p in part.parameters())
