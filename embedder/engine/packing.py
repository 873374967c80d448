"""Texts in one row without padding, and attention that keeps them apart.

Linear layers, norms and rotary positions treat every token alone, so they may see all texts of a
batch as one row (1, total). Attention alone must know where a text ends, so it is done by a kernel
that does. The one here runs once per group of texts of equal length, without padding or a mask;
``kernels`` has those for a GPU. A base whose attention is transformers' usual one is given
``ATTENTION_NAME`` for it when it is loaded: that is packed where this thread runs a packed batch,
and the usual one everywhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedder.engine.batches import to_device

ATTENTION_NAME = "millpond_packed"
"""Our attention's name in transformers."""

_USUAL = "sdpa"

_HARMLESS = frozenset(
    {"cache_position", "is_causal", "output_attentions", "position_ids", "sliding_window"}
)
"""Settings that an attention may be given without any effect on what is computed here."""


class PackingError(Exception):
    """A base asks for something that the packed attention does not do."""


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
        total = sum(map(len, rows))
        ids = torch.from_numpy(np.fromiter(chain.from_iterable(rows), np.int64, total))
        groups: list[Group] = []
        for row in rows:
            if groups and groups[-1].tokens == len(row):
                last = groups.pop()
                groups.append(Group(last.start, last.texts + 1, last.tokens))
            else:
                groups.append(Group(groups[-1].stop if groups else 0, 1, len(row)))
        positions = torch.cat([torch.arange(g.tokens).repeat(g.texts) for g in groups])
        return cls(to_device(ids[None], device), to_device(positions[None], device), tuple(groups))

    @cached_property
    def offsets(self) -> Tensor:
        """Where each text begins, then the number of tokens: (B + 1,) int32."""
        lengths = np.repeat([g.tokens for g in self.groups], [g.texts for g in self.groups])
        starts = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        return to_device(torch.from_numpy(starts), self.ids.device)

    @cached_property
    def sizes(self) -> list[int]:
        """The number of tokens of each group."""
        return [group.texts * group.tokens for group in self.groups]

    @property
    def longest(self) -> int:
        """The number of tokens of the longest text."""
        return max(group.tokens for group in self.groups)

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """All tokens in order, in few buckets that are padded a little."""
        return make_buckets(self.groups, self.ids.device)

    def reduce(self, states: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return a vector per text, (B, D), of token states (total, D) or (1, total, D).

        ``function`` takes (n, T, D) and a mask (n, T) bool, True at tokens, and gives (n, D): any
        pooling over padded states. It is called once per group, so never with padding; on CUDA
        once per bucket.
        """
        if states.device.type == "cuda":
            return self.reduce_buckets(states, function)
        found = []
        parts = torch.split(states.flatten(0, -2), self.sizes)
        for group, part in zip(self.groups, parts, strict=True):
            own = part.view(group.texts, group.tokens, -1)
            found.append(function(own, own.new_ones(own.shape[:2], dtype=torch.bool)))
        return torch.cat(found)

    def reduce_buckets(
        self, states: Tensor, function: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return the same as ``reduce``, by one call per bucket."""
        states = states.flatten(0, -2)
        return torch.cat([function(each.pad(states), each.real) for each in self.buckets])


MOST_PADDED = 1.25
"""Most places per token in a bucket."""


@dataclass(frozen=True)
class Bucket:
    """Neighbouring texts, padded on the right to the longest of them.

    Attributes
    ----------
    start, stop : the first token of the batch that belongs here, and one past the last.
    real : (texts, tokens) bool, True at tokens.
    slots : (stop - start,) int64, where in ``texts * tokens`` places each token goes; None where
        all texts are of one length, so that nothing is padded.
    """

    start: int
    stop: int
    real: Tensor
    slots: Tensor | None

    def pad(self, states: Tensor) -> Tensor:
        """Return (texts, tokens, ...) of the batch's (total, ...), 0 in the padding."""
        own = states[self.start : self.stop]
        shape = (*self.real.shape, *states.shape[1:])
        if self.slots is None:
            return own.reshape(shape)
        padded = states.new_zeros(self.real.numel(), *states.shape[1:])
        return padded.index_copy_(0, self.slots, own).view(shape)

    def unpad(self, padded: Tensor) -> Tensor:
        """Return (stop - start, ...) of (texts, tokens, ...)."""
        flat = padded.reshape(self.real.numel(), *padded.shape[2:])
        return flat if self.slots is None else flat[self.slots]


def make_buckets(groups: Sequence[Group], device: torch.device) -> tuple[Bucket, ...]:
    """Return buckets over all tokens in order, of neighbouring groups of similar length."""
    buckets: list[Bucket] = []
    together: list[Group] = []
    for group in groups:
        if together and not _may_join([*together, group]):
            buckets.append(_bucket(together, device))
            together = []
        together.append(group)
    return (*buckets, _bucket(together, device)) if together else tuple(buckets)


def _may_join(groups: Sequence[Group]) -> bool:
    texts = sum(group.texts for group in groups)
    longest = max(group.tokens for group in groups)
    return texts * longest <= MOST_PADDED * (groups[-1].stop - groups[0].start)


def _bucket(groups: Sequence[Group], device: torch.device) -> Bucket:
    lengths = np.repeat([g.tokens for g in groups], [g.texts for g in groups])
    longest = int(lengths.max())
    real = np.arange(longest) < lengths[:, None]
    slots = None if real.all() else to_device(torch.from_numpy(np.flatnonzero(real)), device)
    return Bucket(
        groups[0].start, groups[-1].stop, to_device(torch.from_numpy(real), device), slots
    )


@dataclass(frozen=True)
class Pattern:
    """How the tokens of a text see each other.

    Attributes
    ----------
    scaling : what products of queries and keys are multiplied with; None for width ** -0.5.
    window : how many tokens each one sees, itself included; None for all before it.
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
    """What this thread's attention works on now, and the windows that layers named."""

    batch: PackedBatch
    is_causal: bool
    kernel: Kernel
    windows: set[int] = field(default_factory=set)


_thread = threading.local()


def use_packed_attention(model: Any) -> None:
    """Let a base attend by ``ATTENTION_NAME``, if its attention is the usual one and it can."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _mask)
    settable = getattr(model, "_can_set_attn_implementation", bool)
    if model.config._attn_implementation == _USUAL and settable():
        model.set_attn_implementation(ATTENTION_NAME)


def can_pack(model: Any) -> bool:
    """Whether ``use_packed_attention`` has changed this model's attention."""
    return bool(model.config._attn_implementation == ATTENTION_NAME)


def packed_states(
    model: Any, batch: PackedBatch, is_causal: bool, kernel: Kernel | None = None
) -> tuple[Tensor, set[int]]:
    """Return the last layer's states (total, D), and the sliding windows that layers named.

    ``kernel`` attends; by default ``GROUPS``.
    """
    with _attending(_Boundaries(batch, is_causal, kernel or GROUPS)) as boundaries:
        out = model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False)
    return out.last_hidden_state[0], boundaries.windows


def attending_to() -> tuple[PackedBatch, bool] | None:
    """Return the packed batch that this thread runs, and whether attention is causal.

    None where it runs none.
    """
    now: _Boundaries | None = getattr(_thread, "boundaries", None)
    return None if now is None else (now.batch, now.is_causal)


def recompute_contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return ``context_fn`` for torch's checkpoint: layers computed again attend as at first.

    A gradient asks for them after ``packed`` has ended, and maybe on another thread.
    """
    now: _Boundaries | None = getattr(_thread, "boundaries", None)
    return nullcontext(), nullcontext() if now is None else _attending(now)


@contextmanager
def _attending(boundaries: _Boundaries) -> Iterator[_Boundaries]:
    outer = getattr(_thread, "boundaries", None)
    _thread.boundaries = boundaries
    try:
        yield boundaries
    finally:
        _thread.boundaries = outer


def _attend(*given: Any, **settings: Any) -> tuple[Tensor, Any]:
    """Attend as transformers asks for it: packed where this thread is, else as usual."""
    if attending_to() is not None:
        return packed_attention(*given, **settings)
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: tuple[Tensor, Any] = sdpa_attention_forward(*given, **settings)
    return found


def _mask(*shape: Any, **settings: Any) -> Any:
    """Return the usual mask; None, which is no mask, for packed texts."""
    from transformers.masking_utils import sdpa_mask

    return None if attending_to() is not None else sdpa_mask(*shape, **settings)


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
    now = _current()
    pattern = Pattern(now.is_causal, scaling, window if now.is_causal else None)
    return now.kernel.run(query, key, value, now.batch, pattern), None


def _attend_groups(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
) -> Tensor:
    """Attend once per group of texts of equal length, without a mask.

    On a CPU it attends in float32 whatever the layers compute in: torch's gradient of attention
    takes ten times as long there in bfloat16, and products of one text are small.
    """
    dtype = query.dtype
    if query.device.type == "cpu":  # under autocast, each may have a dtype of its own
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False):
        return _attend_each(query, key, value, batch, pattern).to(dtype)


def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
) -> Tensor:
    """Return (1, total, heads, d) of queries, keys and values as in ``Kernel.run``.

    Tensors are split and joined once: the gradient of each slice would be as long as all texts.
    """
    split = (torch.split(each.squeeze(0), batch.sizes, 1) for each in (query, key, value))
    found = []
    for group, *parts in zip(batch.groups, *split, strict=True):
        queries, keys, values = (
            part.unflatten(1, (group.texts, group.tokens)).transpose(0, 1) for part in parts
        )
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            is_causal=pattern.is_causal,
            scale=pattern.scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        found.append(mixed.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[None]


GROUPS = Kernel("one call per group of equal lengths", _attend_groups)


def _current() -> _Boundaries:
    boundaries: _Boundaries | None = getattr(_thread, "boundaries", None)
    if boundaries is None:
        raise PackingError("this thread runs no packed batch")
    return boundaries
