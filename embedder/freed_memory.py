"""Memory that a process keeps between batches. Imports no torch."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

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
