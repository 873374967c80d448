"""Which device and dtype a model runs on."""

from __future__ import annotations

import torch

from retrieval.errors import UsageError

__all__ = ["choose_device", "choose_dtype"]


def choose_device(name: str | None = None) -> torch.device:
    """Return the named device, or the best there is: cuda, then mps, then cpu.

    Raises
    ------
    UsageError : the name is not a torch device, or this machine has none of that kind.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name is None:
        return torch.device(present[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in present:
        raise UsageError(f"The device {name!r} is not here; accepted: {', '.join(present)}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"The device {name!r} is not here; {torch.cuda.device_count()} GPUs are.")
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 on a GPU that computes in it, else float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32
