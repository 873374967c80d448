"""Where and how a model computes: device, dtype, speed; and memory and logs of the process.

torch is imported where devices are asked for: commands set memory up without it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from retrieval.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch


Speed = Literal["exact", "fast"]
"""``exact`` gives the model's own vectors. ``fast`` may compute in int8."""

SPEEDS: tuple[Speed, ...] = get_args(Speed)


def check_speed(speed: str) -> Speed:
    """Return the speed, or raise UsageError where there is none of this name."""
    for known in SPEEDS:
        if speed == known:
            return known
    raise UsageError(f"speed is {speed!r}; expected {' or '.join(SPEEDS)}.")


_IN_OUR_WORDS = {
    "instantiate the backend tokenizer": "it has no fast tokenizer (tokenizer.json)",
    "`ignore_mismatched_sizes`": "its weights have other shapes than its config.json says",
}
"""Errors of transformers whose first line alone does not say what is wrong."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error of another library, or its class where it says nothing."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return next((ours for theirs, ours in _IN_OUR_WORDS.items() if theirs in said), said)


def refuse_missing_weights(shown: str, missing: Collection[str]) -> None:
    """Raise ModelError where a model's files lack weights: transformers draws random ones."""
    if missing:
        raise ModelError(
            f"{shown} lacks weights that its architecture has (such as {min(missing)}), and random "
            f"ones would take their place. Copy the folder again, or name another model."
        )


def choose_device(name: str | None = None) -> torch.device:
    """Return the named device, or the best there is: cuda, then mps, then cpu.

    Raises
    ------
    UsageError : the name is not a torch device, or this machine has none of that kind.
    """
    import torch

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
        raise UsageError(f"The device {name!r} is not here; expected {' or '.join(present)}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"The device {name!r} is not here; {torch.cuda.device_count()} GPUs are.")
    return device


def choose_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 on a GPU that computes in it, else float32."""
    import torch

    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_ names of glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc refuses more
_KEPT_BYTES = 1 << 30
_CHOSEN_BY_THE_USER = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, up to 1 GiB, instead of giving it back to the system.

    A layer's results take megabytes and live for milliseconds. By default glibc maps them anew
    each time, and the system fills every page with zeros first. For commands that embed much; a
    library is not to decide this for the program that it is part of. Nothing is changed where
    another C library is used, or where the environment sets glibc's own variables for it.

    Returns
    -------
    Whether it was done.
    """
    if not sys.platform.startswith("linux") or any(map(os.environ.get, _CHOSEN_BY_THE_USER)):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # such as musl
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    wanted = {_MMAP_THRESHOLD: _LARGEST_MMAP_THRESHOLD, _TRIM_THRESHOLD: _KEPT_BYTES}
    return all(mallopt(name, value) == 1 for name, value in wanted.items())


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Silence everything below an error of some loggers, then restore what was set."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence everything below an error, then restore what was set."""
    from transformers.utils import logging as library_logging

    library: Any = library_logging
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    advisory = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
    library.set_verbosity_error()
    library.disable_progress_bar()
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    try:
        with quiet_loggers("huggingface_hub"):  # says each of its attempts to reach a host
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()
        if advisory is None:
            del os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"]
        else:
            os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = advisory
