"""Which texts answer which query, over all training pairs."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from embedder.training.data.layouts import Pair

__all__ = ["Keys", "KnownPairs", "hash_text"]

Keys = npt.NDArray[np.uint64]
"""Hashes of texts, as ``hash_text`` makes them."""


def hash_text(text: str) -> int:
    """Return 64 bits that are equal for texts that differ in case and blanks only."""
    plain = " ".join(text.split()).casefold()
    return int.from_bytes(blake2b(plain.encode(), digest_size=8).digest(), "little")


class KnownPairs:
    """Which texts answer which query, over all pairs; 16 bytes per pair.

    Texts are compared without regard to case and blanks, by 64-bit hashes. Two texts that share
    a hash by chance would cost one negative, never make a wrong one.

    Parameters
    ----------
    keys : (N, 2), the hashes of the query and the positive of each pair.
    """

    def __init__(self, keys: Keys) -> None:
        order = np.argsort(keys[:, 0], kind="stable")
        self._queries = keys[order, 0]
        self._positives = keys[order, 1]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> KnownPairs:
        """Return what is known from these pairs."""
        texts = (text for pair in pairs for text in (pair.query, pair.positive))
        return cls(np.fromiter(map(hash_text, texts), np.uint64).reshape(-1, 2))

    def positives(self, query: int) -> Keys:
        """Return the hashes of every positive of a query, itself named by its hash."""
        key = np.uint64(query)
        start = np.searchsorted(self._queries, key, side="left")
        end = np.searchsorted(self._queries, key, side="right")
        found: Keys = self._positives[start:end]
        return found
