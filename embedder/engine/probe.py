"""Whether a base may be packed: found out by packing it once, and comparing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from embedder.engine.packing import PackedBatch, packed

__all__ = ["longest_packed", "packed_states"]

PROBE_LENGTHS = (7, 5, 5, 2, 1)
_TOLERANCE = 1e-4
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "local_attention")
"""Where configurations keep the number of tokens that some layers can look back."""


def packed_states(model: Any, batch: PackedBatch, is_causal: bool) -> tuple[Tensor, set[int]]:
    """Return the last layer's states (total, D), and the sliding windows that layers named."""
    with packed(model, batch, is_causal) as windows:
        out = model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False)
    return out.last_hidden_state[0], windows


@torch.no_grad()
def longest_packed(
    model: Any, padded_states: Callable[[Tensor, Tensor], Tensor], is_causal: bool
) -> int:
    """Return the length in tokens up to which texts may be packed; 0 where none may.

    Random texts of several lengths go through the model packed and padded. Every state must be
    the same to 1e-4 of the largest one. A base that is not in float32 on a CPU, that does not
    take its attention from transformers' interface, asks it for more than the packed attention
    does, or mixes neighbouring tokens elsewhere, is padded. A layer with a sliding window sees all
    of a text that is no longer than the window, so longer ones are padded.

    Parameters
    ----------
    padded_states : (ids (B, T) int64, mask (B, T) int64) to states (B, T, D).
    """
    weights = next(model.parameters())
    if weights.device.type != "cpu" or weights.dtype != torch.float32:
        return 0
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(0, int(model.config.vocab_size), (length,), generator=generator)
        for length in PROBE_LENGTHS
    ]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor(PROBE_LENGTHS)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    expected = padded_states(ids, mask)[mask.bool()]
    batch = PackedBatch.of([row.tolist() for row in rows], weights.device)
    try:
        found, windows = packed_states(model, batch, is_causal)
    except Exception:  # whatever an unknown architecture raises, the padded path is right
        return 0
    if found.shape != expected.shape:
        return 0
    apart = (found - expected).abs().max() / expected.abs().max()
    if not bool(apart <= _TOLERANCE):
        return 0
    return min([sys.maxsize, *windows, *_configured_windows(model.config)])


def _configured_windows(config: Any) -> list[int]:
    found = [getattr(config, name, None) for name in _WINDOWS]
    return [window for window in found if isinstance(window, int) and window > 0]
