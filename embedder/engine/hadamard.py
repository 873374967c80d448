"""Hadamard matrices, by which int8 layers rotate their inputs and weights. Imports no torch."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

_LARGEST_BLOCK = 64


def block_of(width: int) -> int:
    """Return how many of ``width`` numbers are rotated together.

    It is the largest power of two, up to 64, that divides the width.
    """
    block = 1
    while block < _LARGEST_BLOCK and width % (2 * block) == 0:
        block *= 2
    return block


@cache
def hadamard(size: int) -> npt.NDArray[np.float32]:
    """Return the orthogonal and symmetric Hadamard matrix of a power of two, (size, size)."""
    if size == 1:
        return np.ones((1, 1), dtype=np.float32)
    half = hadamard(size // 2)
    doubled: npt.NDArray[np.float64] = np.block([[half, half], [half, -half]]) / np.sqrt(2)
    return doubled.astype(np.float32)
