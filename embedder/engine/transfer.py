"""Tensors on their way to a GPU and back, without waiting for it where that can be avoided."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

__all__ = ["Arrival", "Meter", "free_bytes", "to_device"]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the CPU tensor on ``device``; to a GPU through pinned memory, without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Arrival:
    """A result that is copied to the CPU while the GPU goes on; ``wait`` gives it.

    Elsewhere than on CUDA it is there at once.
    """

    def __init__(self, found: Tensor) -> None:
        self._there: Any = None
        if found.device.type != "cuda":
            self._tensor = found.cpu()
            return
        self._tensor = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        self._tensor.copy_(found, non_blocking=True)
        self._there = _new_event()
        self._there.record(torch.cuda.current_stream(found.device))

    def wait(self) -> Tensor:
        """Return the tensor on the CPU, once it is whole."""
        if self._there is not None:
            self._there.synchronize()
        return self._tensor


class Meter:
    """Measures one batch: its time on the device, and the memory it needed at the most.

    On CUDA both are read without making the GPU wait: the time from two events, the memory from
    the allocator's own count. Elsewhere the time is the clock's, and the memory is not known.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self.used_bytes = 0
        self._began = time.perf_counter()
        self._ended = self._began
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(device)
            self._before_bytes = torch.cuda.memory_allocated(device)
            self._events = [_new_event(), _new_event()]
            self._events[0].record(torch.cuda.current_stream(device))

    def stop(self) -> None:
        """Say that the batch was handed to the device, and on the CPU is done."""
        self._ended = time.perf_counter()
        if self._is_cuda:
            peak_bytes = torch.cuda.max_memory_allocated(self._device)
            self.used_bytes = peak_bytes - self._before_bytes
            self._events[1].record(torch.cuda.current_stream(self._device))

    @property
    def seconds(self) -> float:
        """How long it took; on CUDA only once its result has arrived."""
        if self._is_cuda:
            self._events[1].synchronize()
            return float(self._events[0].elapsed_time(self._events[1])) / 1000
        return self._ended - self._began


def _new_event() -> Any:
    """Return a mark in a GPU's work, which can be waited for and whose time is kept."""
    cuda: Any = torch.cuda  # its classes have no types
    return cuda.Event(enable_timing=True)


def free_bytes(device: torch.device) -> int:
    """Return how much memory of a GPU a batch may still take; 0 where that is not known.

    What torch's allocator holds without using it counts as free.
    """
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + held
