"""Packed texts padded in a few buckets of similar length, for what a GPU does once a call.

Every call costs a GPU about the same, however little it computes: one a group of equal lengths
would be hundreds for mixed texts. Buckets padded by a quarter at most are a few dozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from embedder.engine.transfer import to_device

if TYPE_CHECKING:
    from embedder.engine.packing import Group

__all__ = ["Bucket", "make_buckets"]

MOST_PADDED = 1.25
"""A bucket has at most so many places for each token."""


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
