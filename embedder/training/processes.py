"""Several processes as one batch: who we are, shared rows with gradients, summed gradients.

Every process computes the whole loss from the rows of all of them, in which only its own rows
carry gradients. What it gets is therefore exactly its share of the whole gradient; the shares are
summed, not averaged.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor, nn

from embedder.environment import choose_device
from retrieval.protocols import Notify

_MESSAGE_NUMBERS = 1 << 24


@dataclass(frozen=True)
class Processes:
    """This process among those that torchrun or accelerate launched."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def parts(self, pairs: int) -> list[range]:
        """Return which of a step's pairs each process has."""
        share = pairs // self.count
        return [range(rank * share, (rank + 1) * share) for rank in range(self.count)]

    def wait(self) -> None:
        """Block until every process has come here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: str | None) -> Processes:
    """Return this process's place; alone unless torchrun or accelerate launched several."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes(choose_device(device))
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    return Processes(state.device, state.process_index, state.num_processes)


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the rows (N, D) of all processes in rank order; the own ones carry gradients.

    Parameters
    ----------
    rows : (n, D), n = counts[own rank]; the counts may differ.
    """
    if len(counts) == 1:
        return rows
    rank = dist.get_rank()
    longest = max(counts)
    sent = rows.new_zeros(longest, rows.shape[1])
    sent[: rows.shape[0]] = rows.detach()
    received = [torch.empty_like(sent) for _ in counts]
    dist.all_gather(received, sent)
    parts = [part[:count] for part, count in zip(received, counts, strict=True)]
    parts[rank] = rows
    return torch.cat(parts)


def sum_gradients(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Replace each gradient by its sum over processes; a missing one counts as zero."""
    if processes.count == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = torch.tensor([p.grad is not None for p in trained], device=processes.device).int()
    dist.all_reduce(used)
    kept = [p for p, count in zip(trained, used.tolist(), strict=True) if count]
    for parameter in kept:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _in_messages([p.grad for p in kept if p.grad is not None], dist.all_reduce)


def share_parameters(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Give every process the first one's weights."""
    if processes.count > 1:
        _in_messages([p.data for p in parameters], lambda message: dist.broadcast(message, src=0))


def _in_messages(tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
    """Send tensors, joined into few messages since LoRA has many, and take over the answers."""
    group: list[Tensor] = []
    for index, tensor in enumerate(tensors):
        group.append(tensor)
        full = sum(member.numel() for member in group) >= _MESSAGE_NUMBERS
        if not full and index + 1 < len(tensors) and tensors[index + 1].dtype == tensor.dtype:
            continue
        message = torch.cat([member.flatten() for member in group])
        send(message)
        parts = torch.split(message, [member.numel() for member in group])
        for member, part in zip(group, parts, strict=True):
            member.copy_(part.view_as(member))
        group = []


class StopRequest:
    """Whether SIGINT arrived."""

    asked = False


@contextmanager
def stop_request(notify: Notify) -> Iterator[StopRequest]:
    """Note the first SIGINT inside the block, so that the step can be finished; a second one ends.

    Outside the main thread, and where SIGINT is ignored or has another handler, nothing changes.

    Parameters
    ----------
    notify : receives one line when SIGINT arrives.
    """
    stop, usual = StopRequest(), signal.default_int_handler

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, usual)
        notify("Finishing this step, then writing a checkpoint; Ctrl-C again ends at once.")

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not usual:
        yield stop
        return
    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, usual)
