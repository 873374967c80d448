"""A compact set of ids, for finding duplicates in corpora of millions of documents."""

from __future__ import annotations

from array import array
from hashlib import blake2b

import numpy as np

__all__ = ["IdSet"]

_TABLES = 256
_FIRST_SLOTS = 24
_SPARE = 16  # slots behind the last home slot, so that probing never wraps round
_MAX_LOAD = 0.8
_GROWTH = 1.4


class IdSet:
    """Remembers which ids were added, in 10 to 15 bytes an id however long the ids are.

    Keeps a 64-bit BLAKE2b hash of each id in open-addressing tables (linear probing). Two
    different ids are taken for one with probability N**2 / 2**65: 3e-8 at a million ids,
    3e-4 at a hundred million. The low 8 bits of a hash choose one of 256 tables, each of which
    grows on its own: growing needs scratch memory for one table only.
    """

    def __init__(self) -> None:
        self._tables = [_empty_table(_FIRST_SLOTS) for _ in range(_TABLES)]
        self._room = [int(_FIRST_SLOTS * _MAX_LOAD)] * _TABLES
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, identifier: str) -> bool:
        """Add an id; return True where it is new, False where it was there already."""
        digest = blake2b(identifier.encode(), digest_size=8).digest()
        value = int.from_bytes(digest, "little") or 1  # 0 marks an empty slot
        number = value & (_TABLES - 1)
        table = self._tables[number]
        slot = (value >> 32) * (len(table) - _SPARE) >> 32
        while held := table[slot]:
            if held == value:
                return False
            slot += 1
        table[slot] = value
        self._length += 1
        self._room[number] -= 1
        # The last slot stays empty: it is what ends the probing above.
        if self._room[number] == 0 or slot + 1 == len(table):
            self._grow(number)
        return True

    @property
    def size_bytes(self) -> int:
        """Memory that the tables take."""
        return sum(8 * len(table) for table in self._tables)

    def _grow(self, number: int) -> None:
        """Move one table into a larger one.

        A hash's home slot rises with the hash, so sorted hashes have sorted homes and linear
        probing puts each at max(its home, the slot after its predecessor).
        """
        old = np.frombuffer(self._tables[number], dtype=np.uint64)
        values = np.sort(old[old != 0])
        order = np.arange(len(values))
        slots = len(old) - _SPARE
        last = len(old)
        while last >= slots + _SPARE - 1:
            slots = int(slots * _GROWTH) + 1
            homes = ((values >> np.uint64(32)) * np.uint64(slots) >> np.uint64(32)).astype(np.int64)
            places = np.maximum.accumulate(homes - order) + order
            last = int(places[-1])
        table = _empty_table(slots)
        np.frombuffer(table, dtype=np.uint64)[places] = values
        self._tables[number] = table
        self._room[number] = max(1, int(slots * _MAX_LOAD) - len(values))


def _empty_table(slots: int) -> array[int]:
    return array("Q", bytes(8 * (slots + _SPARE)))
