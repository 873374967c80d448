"""The blocks of a file, 1 MiB each, that are compared with their checksums when first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from xxhash import xxh3_64_hexdigest

from indexes.storage.files import BLOCK_BYTES, BLOCK_DIGITS, StoredFile, changed_block, damaged
from retrieval.protocols import Rows

__all__ = ["Blocks", "ReadPart", "from_memory"]

ReadPart: TypeAlias = Callable[[int, int], bytes | memoryview]
"""Returns the bytes of a file from the first number to the second, not included."""


class Blocks:
    """Compares the blocks of one file, each before anything in it is used.

    A block that was compared is trusted for as long as this object lives. Threads may share it:
    a block that two compare at once is only compared twice.

    Parameters
    ----------
    file : with its checksums; without any, nothing is compared.
    read : reads the file.
    """

    def __init__(self, file: StoredFile, read: ReadPart) -> None:
        self._path, self._sums, self._read = file.path, file.blocks, read
        count = len(self._sums) // BLOCK_DIGITS
        self._unread = np.ones(count, dtype=np.bool_)
        self.left = count

    def check(self, start: int, stop: int, read: ReadPart | None = None) -> None:
        """Compare the blocks that hold the bytes from ``start`` to ``stop``, if not done before.

        Raises
        ------
        IndexCorruptError : a block is not what was written; names the file.
        """
        if self.left and stop > start:
            for number in range(start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1):
                self._compare(number, read or self._read)

    def check_each(self, starts: Rows, length: int) -> None:
        """Compare the blocks that hold ``length`` bytes from each of ``starts`` int64 (n,)."""
        if not self.left:
            return
        first, last = starts // BLOCK_BYTES, (starts + length - 1) // BLOCK_BYTES
        if length > BLOCK_BYTES:
            for start in starts.tolist():
                self.check(start, start + length)
        elif self._unread[first].any() or self._unread[last].any():
            for number in sorted({*first.tolist(), *last.tolist()}):
                self._compare(number, self._read)

    def _compare(self, number: int, read: ReadPart) -> None:
        if not self._unread[number]:
            return
        content = read(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES)
        expected = self._sums[number * BLOCK_DIGITS : (number + 1) * BLOCK_DIGITS]
        if xxh3_64_hexdigest(content) != expected:
            raise damaged(self._path, changed_block(number))
        self._unread[number] = False
        self.left = int(np.count_nonzero(self._unread))


def from_memory(content: memoryview) -> ReadPart:
    """Return what reads a mapped file."""
    return lambda start, stop: content[start:stop]
