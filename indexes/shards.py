"""Vectors on disk: written once, as .npy shards that grow while the corpus is encoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from retrieval import Vectors
from retrieval.errors import IndexCorruptError, VectorError

__all__ = ["SHARD_BYTES", "ShardWriter", "Shards", "check_vectors", "find_bad_row"]

SHARD_BYTES = 256 * 2**20
BLOCK_BYTES = 64 * 2**20


def check_vectors(vectors: object, dimension: int, *, source: str) -> Vectors:
    """Return ``vectors`` if they are float32 of shape (N, dimension) and finite; N may be 0.

    Raises
    ------
    VectorError : otherwise; the message starts with ``source``.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        arrived = getattr(vectors, "dtype", type(vectors).__name__)
        raise VectorError(f"{source}: the vectors are {arrived}; float32 is accepted.")
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise VectorError(
            f"{source}: the vectors have shape {vectors.shape}; (N, {dimension}) is accepted."
        )
    bad = find_bad_row(vectors)
    if bad is not None:
        raise VectorError(f"{source}: row {bad} holds NaN or infinity.")
    return vectors


def find_bad_row(vectors: Vectors) -> int | None:
    """Return the first row that holds NaN or infinity, or None if all are finite."""
    finite = np.isfinite(vectors).all(axis=1)
    return None if finite.all() else int(np.argmin(finite))


class ShardWriter:
    """Appends vectors to ``folder/00000.npy`` and up.

    Every batch reaches the file at once, so the memory used does not grow with the corpus. The
    header of the shard in progress says 0 rows until the shard is complete.

    Parameters
    ----------
    folder : made if missing.
    dimension : D of every vector.
    shard_bytes : a new shard is begun once the current one has this size.
    """

    def __init__(self, folder: Path, dimension: int, *, shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.dimension = dimension
        self.rows = 0
        self._rows_in_shard = max(1, shard_bytes // (4 * dimension))
        self._stream: BinaryIO | None = None
        self._shards = 0
        self._written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        elif self._stream is not None:
            with suppress(OSError):  # an error is on its way already, and says more
                self._stream.close()

    def append(self, vectors: Vectors) -> None:
        """Write float32 (N, D).

        Raises
        ------
        VectorError : wrong shape or dtype, NaN or infinity.
        OSError : the disk refuses.
        """
        left = check_vectors(vectors, self.dimension, source="encoder")
        while len(left):
            stream = self._stream or self._begin()
            part, left = np.split(left, [self._rows_in_shard - self._written])
            stream.write(np.ascontiguousarray(part, dtype="<f4").data)
            self._written += len(part)
            self.rows += len(part)
            if self._written == self._rows_in_shard:
                self._finish()
        if self._stream is not None:
            self._stream.flush()

    def _begin(self) -> BinaryIO:
        path = self.folder / f"{self._shards:05d}.npy"
        self._stream = path.open("wb")
        self._write_header(self._stream)
        self._shards += 1
        return self._stream

    def _finish(self) -> None:
        if self._stream is None:
            return
        with self._stream as stream:
            stream.seek(0)
            self._write_header(stream)
        self._stream = None
        self._written = 0

    def _write_header(self, stream: BinaryIO) -> None:
        # numpy pads the header so that the row count can grow in place.
        shape = (self._written, self.dimension)
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )


class Shards:
    """Reads the vectors of an index in order, memory-mapped.

    Raises
    ------
    IndexCorruptError : a shard is not float32 (n, dimension), or is truncated.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.dimension = dimension
        self._arrays = [_map_shard(path, dimension) for path in sorted(folder.glob("*.npy"))]
        self._ends = np.cumsum([len(array) for array in self._arrays], dtype=np.int64)

    def __len__(self) -> int:
        """Return N, the number of vectors."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[Vectors]:
        """Yield float32 (n, D) blocks of at most 64 MiB, in order."""
        step = max(1, BLOCK_BYTES // (4 * self.dimension))
        for array in self._arrays:
            for start in range(0, len(array), step):
                yield np.asarray(array[start : start + step])

    def sample(self, count: int, *, seed: int) -> Vectors:
        """Return ``count`` different rows (or all, if fewer), in order, equal for equal seeds."""
        if count >= len(self):
            rows = np.arange(len(self), dtype=np.int64)
        else:
            chosen = np.random.default_rng(seed).choice(len(self), count, replace=False)
            rows = np.sort(chosen).astype(np.int64)
        sampled = np.empty((len(rows), self.dimension), dtype=np.float32)
        start = 0
        for array, end in zip(self._arrays, self._ends, strict=True):
            stop = int(np.searchsorted(rows, end))
            sampled[start:stop] = array[rows[start:stop] - (end - len(array))]
            start = stop
        return sampled


def _map_shard(path: Path, dimension: int) -> npt.NDArray[np.float32]:
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, OSError) as error:
        raise IndexCorruptError(f"{path} cannot be read: {error}") from error
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != dimension:
        raise IndexCorruptError(
            f"{path} holds {array.dtype} {array.shape}; float32 (n, {dimension}) was expected."
        )
    return array  # type: ignore[no-any-return]
