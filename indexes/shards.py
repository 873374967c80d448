"""Vectors on disk: written once, a .npy file for each shard of the corpus."""

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

__all__ = ["Shards", "VectorWriter", "check_vectors", "find_bad_row"]

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


class VectorWriter:
    """Appends vectors to one .npy file.

    Every batch reaches the file at once, so the memory used does not grow with the shard. The
    header says 0 rows until the file is complete.

    Parameters
    ----------
    path : the file, replaced if it is there.
    dimension : D of every vector.
    """

    def __init__(self, path: Path, dimension: int) -> None:
        self.path = path
        self.dimension = dimension
        self.rows = 0
        self._stream: BinaryIO = path.open("wb")
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            with self._stream as stream:
                stream.seek(0)
                self._write_header()
            return
        with suppress(OSError):  # an error is on its way already, and says more
            self._stream.close()

    def append(self, vectors: Vectors) -> None:
        """Write float32 (N, D) to the end.

        Raises
        ------
        VectorError : wrong shape or dtype, NaN or infinity.
        OSError : the disk refuses.
        """
        checked = check_vectors(vectors, self.dimension, source="encoder")
        self._stream.write(np.ascontiguousarray(checked, dtype="<f4").data)
        self._stream.flush()
        self.rows += len(checked)

    def _write_header(self) -> None:
        # numpy pads the header so that the row count can grow in place.
        shape = (self.rows, self.dimension)
        np.lib.format.write_array_header_1_0(
            self._stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
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
