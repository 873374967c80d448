"""Attention patterns by name, and the probe whether a loaded model has the one asked for.

In transformers 5 a decoder turns bidirectional when ``config.is_causal`` is False: mask and
kernel both follow it. Some architectures ignore the switch without a word, so every load is
probed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedder.pooling.modules import last_token, mean
from retrieval.errors import AttentionProbeError, UnknownNameError

__all__ = ["ATTENTIONS", "Attention", "attends_both_ways", "get_attention", "probe_attention"]

PROBE_TOKENS = 8
_MOVED = {torch.float32: 1e-5, torch.float64: 1e-5}
_MOVED_HALF = 2e-3


@dataclass(frozen=True)
class Attention:
    """One attention pattern.

    Attributes
    ----------
    is_causal : what ``config.is_causal`` is set to.
    layer_summary : (B, T, D) and mask (B, T) to (B, D): what stands for a whole layer where
        a pooling reads one vector per layer (arXiv 2409.02727, section 3.2).
    """

    name: str
    summary: str
    is_causal: bool
    layer_summary: Callable[[Tensor, Tensor], Tensor]


ATTENTIONS: dict[str, Attention] = {
    entry.name: entry
    for entry in (
        Attention("causal", "each token sees itself and earlier ones", True, last_token),
        Attention("bidirectional", "each token sees the whole text", False, mean),
    )
}


def get_attention(name: str) -> Attention:
    """Return the attention of this name, or raise UnknownNameError."""
    try:
        return ATTENTIONS[name]
    except KeyError:
        raise UnknownNameError("attention", name, ATTENTIONS) from None


def attends_both_ways(config: Any) -> bool:
    """Whether a model's own configuration says that each token sees the whole text."""
    said = getattr(config, "use_bidirectional_attention", None)
    return said in (True, "all") or getattr(config, "is_causal", None) is False


@torch.no_grad()
def probe_attention(
    states: Callable[[Tensor, Tensor], Tensor],
    attention: Attention,
    *,
    vocabulary: int,
    device: torch.device,
    described: str,
) -> None:
    """Raise AttentionProbeError unless the model attends the way ``attention`` says.

    The last real token of a short text is changed. Under bidirectional attention the first
    position's last-layer state must move, under causal attention no earlier position may. Both
    an unpadded and a right-padded batch are tried, since they can take different kernels.

    Parameters
    ----------
    states : (ids (B, T) int64, mask (B, T) int64) to last-layer states (B, T, D).
    vocabulary : token ids 0 to vocabulary - 1 are valid.
    described : the model's name, for the message.
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, vocabulary, (1, PROBE_TOKENS), generator=generator)
    changed = first.clone()
    changed[0, -1] = (changed[0, -1] + vocabulary // 2) % vocabulary
    pair = torch.cat([first, changed]).to(device)
    for padding in (0, 2):
        ids = torch.cat([pair, pair[:, :1].expand(2, padding)], dim=1)
        mask = torch.ones_like(ids)
        mask[:, PROBE_TOKENS:] = 0
        found = states(ids, mask)
        earlier = found[:, : PROBE_TOKENS - 1].float()
        shift = (earlier[0] - earlier[1]).abs().amax(dim=-1) / earlier.abs().max()
        moved = shift > _MOVED.get(found.dtype, _MOVED_HALF)
        if attention.is_causal and bool(moved.any()):
            raise AttentionProbeError(
                f"{described} was asked for causal attention, but changing the last token moved "
                f"an earlier position. This architecture attends both ways by itself: "
                f"use +bidirectional."
            )
        if not attention.is_causal and not bool(moved[0]):
            raise AttentionProbeError(
                f"{described} was asked for bidirectional attention, but changing the last token "
                f"left the first position as it was: this architecture ignores "
                f"config.is_causal=False. Use +causal, or another base (llama, qwen3, mistral "
                f"and gemma3 architectures follow it)."
            )
