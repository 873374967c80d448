"""Texts in one row without padding, and attention that keeps them apart.

Linear layers, norms and rotary positions treat every token alone, so they may see all texts of a
batch as one row (1, total). Attention alone must know where a text ends: it runs once a group of
texts of equal length, which needs neither padding nor a mask. The boundaries reach it through the
current thread, not through arguments, which would compile a layer anew for every batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ATTENTION_NAME", "Group", "PackedBatch", "PackingError", "packed"]

ATTENTION_NAME = "millpond_packed"
"""Under which transformers knows the packed attention."""

_HARMLESS = frozenset(
    {"cache_position", "is_causal", "output_attentions", "position_ids", "sliding_window"}
)
"""Settings that an attention may be given without any effect on what is computed here."""


class PackingError(Exception):
    """A base asks its attention for something that the packed one does not do."""


@dataclass(frozen=True)
class Group:
    """Neighbouring texts of one length: ``texts`` times ``tokens`` tokens from ``start`` on."""

    start: int
    texts: int
    tokens: int

    @property
    def stop(self) -> int:
        """One past the last token."""
        return self.start + self.texts * self.tokens


@dataclass(frozen=True)
class PackedBatch:
    """Texts one after another, padded nowhere.

    Attributes
    ----------
    ids : (1, total) int64.
    positions : (1, total) int64, 0 at the first token of every text.
    groups : cover all tokens in order.
    """

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device) -> PackedBatch:
        """Pack rows of at least one token each; equal lengths side by side make one group."""
        ids = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
        groups: list[Group] = []
        for row in rows:
            if groups and groups[-1].tokens == len(row):
                last = groups.pop()
                groups.append(Group(last.start, last.texts + 1, last.tokens))
            else:
                groups.append(Group(groups[-1].stop if groups else 0, 1, len(row)))
        positions = torch.cat([torch.arange(g.tokens).repeat(g.texts) for g in groups])
        return cls(ids[None].to(device), positions[None].to(device), tuple(groups))

    def reduce(self, states: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return a vector per text, (B, D), of token states (total, D).

        ``function`` takes (n, T, D) and a mask (n, T) bool that is True everywhere, and gives
        (n, D): any pooling over padded states, here once a group and never with padding.
        """
        found = []
        for group in self.groups:
            own = states[group.start : group.stop].view(group.texts, group.tokens, -1)
            found.append(function(own, own.new_ones(own.shape[:2], dtype=torch.bool)))
        return torch.cat(found)


@dataclass
class _Boundaries:
    """What the attention of this thread needs to know now, and the windows it was told of."""

    groups: tuple[Group, ...]
    is_causal: bool
    windows: set[int] = field(default_factory=set)


_thread = threading.local()


@contextmanager
def packed(model: Any, batch: PackedBatch, is_causal: bool) -> Iterator[set[int]]:
    """Run ``model`` on a packed batch inside the block.

    Gives the set of sliding windows that the model's layers name while it runs.
    """
    _register()
    config, before = model.config, model.config._attn_implementation
    boundaries = _Boundaries(batch.groups, is_causal)
    config._attn_implementation = ATTENTION_NAME
    _thread.boundaries = boundaries
    try:
        yield boundaries.windows
    finally:
        _thread.boundaries = None
        config._attn_implementation = before


def _register() -> None:
    """Make the packed attention known to transformers; again and again does no harm.

    No mask function is registered beside it, so transformers builds no mask at all.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _attention)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend within each text: queries (1, heads, total, d) to (1, total, heads, d).

    Raises
    ------
    PackingError : a mask, dropout or a setting arrives that would have to change the result.
    """
    window = settings.get("sliding_window")
    if window:
        _current().windows.add(int(window))
    foreign = sorted(
        name
        for name, value in settings.items()
        if name not in _HARMLESS and value is not None and value is not False
    )
    if attention_mask is not None or dropout or foreign:
        raise PackingError(f"the packed attention knows no mask, dropout or {foreign}")
    return _attend(query, key, value, scaling), None


@torch.library.custom_op("millpond::packed_attention", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attend within each text; opaque to torch.compile, which need not see the boundaries."""
    boundaries = _current()
    heads, total = query.shape[1:3]
    mixed = query.new_empty(1, total, heads, value.shape[3])
    for group in boundaries.groups:
        found = F.scaled_dot_product_attention(
            _split(query, group),
            _split(key, group),
            _split(value, group),
            is_causal=boundaries.is_causal,
            scale=scaling,
            enable_gqa=key.shape[1] != heads,
        )
        shape = (group.texts, group.tokens, heads, -1)
        mixed[0, group.start : group.stop].view(shape).copy_(found.transpose(1, 2))
    return mixed


@_attend.register_fake
def _attend_shape(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def _split(states: Tensor, group: Group) -> Tensor:
    """Return the group's (texts, heads, tokens, d) of (1, heads, total, d)."""
    own = states[0, :, group.start : group.stop]
    heads, _, width = own.shape
    return own.reshape(heads, group.texts, group.tokens, width).transpose(0, 1)


def _current() -> _Boundaries:
    boundaries: _Boundaries | None = getattr(_thread, "boundaries", None)
    if boundaries is None:
        raise PackingError("the packed attention runs inside packed() only")
    return boundaries
