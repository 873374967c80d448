"""One step's gradient, at once or one forward pass at a time (GradCache, arXiv 2101.06983).

Both ways run the same forward passes in the same order from the same random state, so they give
the same gradients, dropout included. Neither knows of other processes: gradients are summed over
processes afterwards (``distributed.sum_gradients``), which is right however many forward passes
each process makes, where DistributedDataParallel would need ``no_sync`` on all but the last and
equal numbers of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomState", "cached_backward", "plain_backward", "seed_step"]

Chunk = TypeVar("Chunk")


class RandomState:
    """The generators of the CPU and of one device, as they were when this was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._accelerator: Tensor | None = None
        if device.type != "cpu":
            self._accelerator = torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        """Set the generators back."""
        torch.set_rng_state(self._cpu)
        if self._accelerator is not None:
            torch.get_device_module(self._device).set_rng_state(self._accelerator, self._device)


def plain_backward(
    embed: Callable[[Chunk], Tensor], chunks: Sequence[Chunk], loss: Callable[[Tensor], Tensor]
) -> Tensor:
    """Add the gradients of ``loss`` to the parameters of ``embed``; return the loss, detached.

    Parameters
    ----------
    embed : a chunk to rows (n, D), with gradients.
    loss : all rows (N, D), in the order of the chunks, to a scalar.
    """
    value = loss(torch.cat([embed(chunk) for chunk in chunks]))
    if torch.isfinite(value):
        value.backward()  # type: ignore[no-untyped-call]
    return value.detach()


def cached_backward(
    embed: Callable[[Chunk], Tensor],
    chunks: Sequence[Chunk],
    loss: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
) -> Tensor:
    """Do what ``plain_backward`` does while holding the graph of one chunk only.

    All chunks are embedded without a graph, the loss gives each row its gradient, and each chunk
    is embedded again from the random state of its first time to pass that gradient on.
    """
    states: list[RandomState] = []
    parts: list[Tensor] = []
    with torch.no_grad():
        for chunk in chunks:
            states.append(RandomState(device))
            parts.append(embed(chunk))
    rows = torch.cat(parts).requires_grad_()
    value = loss(rows)
    if not torch.isfinite(value):
        return value.detach()
    (gradient,) = torch.autograd.grad(value, rows)
    after = RandomState(device)
    sizes = [part.shape[0] for part in parts]
    for chunk, state, part in zip(chunks, states, torch.split(gradient, sizes), strict=True):
        state.restore()
        torch.autograd.backward(embed(chunk), part)
    after.restore()
    return value.detach()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of seed, step and process, so that a resumed run has the same."""
    torch.manual_seed(int(np.random.SeedSequence([seed, 3, step, rank]).generate_state(1)[0]))
