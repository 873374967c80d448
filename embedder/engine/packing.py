"""Texts in one row without padding, and attention that keeps them apart.

Linear layers, norms and rotary positions treat every token alone, so they may see all texts of a
batch as one row (1, total). Attention alone must know where a text ends, so it is done by a kernel
that does. The one here runs once a group of texts of equal length, which needs neither padding nor
a mask; ``kernels`` has those for a GPU. The boundaries reach it through the current thread, not
through arguments, which would compile a layer anew for every batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from embedder.engine.batches import Group, PackedBatch

__all__ = [
    "ATTENTION_NAME",
    "GROUPS",
    "Kernel",
    "PackingError",
    "Pattern",
    "attending_to",
    "packed",
    "packed_attention",
    "recompute_contexts",
]

ATTENTION_NAME = "millpond_packed"
"""Under which transformers knows the packed attention."""

_HARMLESS = frozenset(
    {"cache_position", "is_causal", "output_attentions", "position_ids", "sliding_window"}
)
"""Settings that an attention may be given without any effect on what is computed here."""


class PackingError(Exception):
    """A base asks its attention for something that the packed one does not do."""


@dataclass(frozen=True)
class Pattern:
    """How the tokens of a text see each other.

    Attributes
    ----------
    scaling : what products of queries and keys are multiplied with; None for width ** -0.5.
    window : how many tokens each one sees, itself the last of them; None for all before it.
    """

    is_causal: bool
    scaling: float | None = None
    window: int | None = None


@dataclass(frozen=True)
class Kernel:
    """Attention that keeps the texts of a batch apart.

    Attributes
    ----------
    run : queries (1, heads, total, d), keys and values of as many heads or a divisor of it, the
        batch and the pattern, to (1, total, heads, d).
    takes_windows : whether it heeds ``Pattern.window``. Others are given no text longer than one.
    """

    name: str
    run: Callable[[Tensor, Tensor, Tensor, PackedBatch, Pattern], Tensor]
    takes_windows: bool = False


@dataclass
class _Boundaries:
    """What the attention of this thread needs to know now, and the windows it was told of."""

    config: Any
    batch: PackedBatch
    is_causal: bool
    kernel: Kernel
    windows: set[int] = field(default_factory=set)


_thread = threading.local()


@contextmanager
def packed(
    model: Any, batch: PackedBatch, is_causal: bool, kernel: Kernel | None = None
) -> Iterator[set[int]]:
    """Run ``model`` on a packed batch inside the block, with ``GROUPS`` or another kernel.

    Gives the set of sliding windows that the model's layers name while it runs.
    """
    _register()
    with _attending(_Boundaries(model.config, batch, is_causal, kernel or GROUPS)) as boundaries:
        yield boundaries.windows


def attending_to() -> tuple[PackedBatch, bool]:
    """Return the batch that this thread runs inside ``packed``, and whether attention is causal."""
    now = _current()
    return now.batch, now.is_causal


def recompute_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return ``context_fn`` for torch's checkpoint: layers computed again attend as at first.

    A gradient asks for them after ``packed`` has ended, and maybe on another thread.
    """
    now: _Boundaries | None = getattr(_thread, "boundaries", None)
    return nullcontext(), nullcontext() if now is None else _attending(now)


@contextmanager
def _attending(boundaries: _Boundaries) -> Iterator[_Boundaries]:
    config, outer = boundaries.config, getattr(_thread, "boundaries", None)
    before = config._attn_implementation
    config._attn_implementation = ATTENTION_NAME
    _thread.boundaries = boundaries
    try:
        yield boundaries
    finally:
        _thread.boundaries = outer
        config._attn_implementation = before


def _register() -> None:
    """Make the packed attention known to transformers; again and again does no harm.

    No mask function is registered beside it, so transformers builds no mask at all.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, packed_attention)


def packed_attention(
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
    window = settings.get("sliding_window") or None
    if window is not None:
        window = int(window)
        _current().windows.add(window)
    foreign = sorted(
        name
        for name, value in settings.items()
        if name not in _HARMLESS and value is not None and value is not False
    )
    if attention_mask is not None or dropout or foreign:
        raise PackingError(f"the packed attention knows no mask, dropout or {foreign}")
    if torch.compiler.is_compiling():
        return _attend(query, key, value, scaling, window), None
    return _run_kernel(query, key, value, scaling, window), None


def _run_kernel(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    now = _current()
    pattern = Pattern(now.is_causal, scaling, window if now.is_causal else None)
    return now.kernel.run(query, key, value, now.batch, pattern)


@torch.library.custom_op("millpond::packed_attention", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    """Attend within each text; opaque to torch.compile, which need not see the boundaries."""
    return _run_kernel(query, key, value, scaling, window)


@_attend.register_fake
def _attend_shape(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def _attend_groups(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
) -> Tensor:
    """Attend once a group of texts of equal length, without a mask."""
    heads, total = query.shape[1:3]
    mixed = query.new_empty(1, total, heads, value.shape[3])
    for group in batch.groups:
        found = F.scaled_dot_product_attention(
            _split(query, group),
            _split(key, group),
            _split(value, group),
            is_causal=pattern.is_causal,
            scale=pattern.scaling,
            enable_gqa=key.shape[1] != heads,
        )
        shape = (group.texts, group.tokens, heads, -1)
        mixed[0, group.start : group.stop].view(shape).copy_(found.transpose(1, 2))
    return mixed


GROUPS = Kernel("one call a group of equal lengths", _attend_groups)


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
