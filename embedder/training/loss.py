"""InfoNCE over in-batch and hard negatives: its value for a step, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedder.training.batch import LocalBatch, StepPairs
from embedder.training.config import LossConfig
from embedder.training.data import KnownPairs, hash_text
from embedder.training.processes import Processes, gather_rows

Chunk = TypeVar("Chunk")


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    *,
    scale: float,
    masked: Tensor | None = None,
    dimensions: Sequence[int] = (),
    symmetric: bool = False,
) -> Tensor:
    """Return the mean over queries of the cross-entropy of their own candidate, a scalar.

    The logit of query i and candidate j is ``scale * cosine``; candidate i is the right one for
    query i, every other one a negative (arXiv 1807.03748, equation 4).

    Parameters
    ----------
    queries : (Q, D), of any length.
    candidates : (C, D) with C >= Q: the positives in the order of the queries, then negatives.
    masked : (Q, C) bool, True where a candidate is left out for a query; never its own.
    dimensions : Matryoshka (arXiv 2205.13147): the loss is averaged over vectors cut to their
        first so many coordinates and then normalised; empty for the whole vectors only.
    symmetric : average with the loss of each positive looking for its query.

    Raises
    ------
    ValueError : fewer candidates than queries.
    """
    if candidates.shape[0] < queries.shape[0]:
        raise ValueError(f"{queries.shape[0]} queries have {candidates.shape[0]} candidates")
    losses = [
        _one_dimension(queries[:, :size], candidates[:, :size], scale, masked, symmetric)
        for size in dimensions or (queries.shape[1],)
    ]
    return torch.stack(losses).mean()


def _one_dimension(
    queries: Tensor, candidates: Tensor, scale: float, masked: Tensor | None, symmetric: bool
) -> Tensor:
    rows = queries.shape[0]
    left = F.normalize(queries.float(), dim=-1)
    right = F.normalize(candidates.float(), dim=-1)
    logits = scale * left @ right.T
    if masked is not None:
        logits = logits.masked_fill(masked, float("-inf"))
    target = torch.arange(rows, device=logits.device)
    loss = F.cross_entropy(logits, target)
    if symmetric:
        loss = (loss + F.cross_entropy(logits[:, :rows].T, target)) / 2
    return loss


def known_matches(
    known: KnownPairs,
    queries: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[str] = (),
) -> Tensor:
    """Return (Q, Q + N) bool: which candidates must not count as negatives of which query.

    The candidates are the positives, then the negatives. Left out for a query are texts that
    ``known`` says answer it, and the query itself. A query's own place is never left out.

    Parameters
    ----------
    known : made from all pairs of the run, not from this batch alone.
    """
    asked = [hash_text(text) for text in queries]
    offered = np.array([hash_text(text) for text in [*positives, *negatives]], np.uint64)
    distinct, places = np.unique(offered, return_inverse=True)
    masked = np.zeros((len(asked), len(offered)), dtype=bool)
    for row, query in enumerate(asked):
        right = np.append(known.positives(query), np.uint64(query))
        at = np.minimum(np.searchsorted(distinct, right), len(distinct) - 1)
        left_out = np.zeros(len(distinct), dtype=bool)
        left_out[at[distinct[at] == right]] = True
        masked[row] = left_out[places]
        masked[row, row] = False
    return torch.from_numpy(masked)


class BatchLoss:
    """The loss of a step, as a function of the rows that this process embedded.

    It takes rows (N, D) in the order of the chunks, gathers those of all processes, and returns
    the loss of the whole batch.

    Parameters
    ----------
    known : which texts answer which query, over all pairs of the run.
    """

    def __init__(
        self,
        step: StepPairs,
        local: LocalBatch,
        options: LossConfig,
        processes: Processes,
        known: KnownPairs,
    ) -> None:
        self._order = local.order
        self._options = options
        self._share = len(step.pairs) // processes.count
        self._processes = processes
        self._negatives = [
            sum(len(step.pairs[place].negatives) for place in part)
            for part in processes.parts(len(step.pairs))
        ]
        self._masked: Tensor | None = None
        if options.mask_duplicates:
            self._masked = known_matches(
                known,
                [pair.query for pair in step.pairs],
                [pair.positive for pair in step.pairs],
                [text for pair in step.pairs for text in pair.negatives],
            ).to(processes.device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        share, count = self._share, self._processes.count
        local = rows[self._order]
        own = (local[:share], local[share : 2 * share], local[2 * share :])
        queries = gather_rows(own[0], [share] * count)
        candidates = [gather_rows(own[1], [share] * count)]
        if sum(self._negatives):
            candidates.append(gather_rows(own[2], self._negatives))
        return info_nce(
            queries,
            torch.cat(candidates),
            scale=self._options.scale,
            masked=self._masked,
            dimensions=self._options.matryoshka_dimensions,
            symmetric=self._options.symmetric,
        )


class _RandomState:
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
    states: list[_RandomState] = []
    parts: list[Tensor] = []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_RandomState(device))
            parts.append(embed(chunk))
    rows = torch.cat(parts).requires_grad_()
    value = loss(rows)
    if not torch.isfinite(value):
        return value.detach()
    value.backward()  # type: ignore[no-untyped-call]  # a loss may have weights of its own
    gradient = rows.grad
    assert gradient is not None
    after = _RandomState(device)
    sizes = [part.shape[0] for part in parts]
    for chunk, state, part in zip(chunks, states, torch.split(gradient, sizes), strict=True):
        state.restore()
        torch.autograd.backward(embed(chunk), part)
    after.restore()
    return value.detach()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of seed, step and process, so that a resumed run repeats it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, 3, step, rank]).generate_state(1)[0]))
