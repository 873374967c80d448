"""Vectors on disk: written once, a .npy file for each shard of the corpus."""

from __future__ import annotations

import mmap
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from indexes.storage.files import Blocks, StoredFile, from_memory, unreadable
from retrieval import Vectors
from retrieval.errors import IndexCorruptError, VectorError
from retrieval.protocols import Rows

BLOCK_BYTES = 16 * 2**20
VECTOR_TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
FLOAT16_MAX = 65_504


def check_vectors(vectors: object, dimension: int, *, source: str) -> Vectors:
    """Return ``vectors`` if they are float32 of shape (N, dimension) and finite; N may be 0.

    Raises
    ------
    VectorError : otherwise; the message starts with ``source``.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        arrived = getattr(vectors, "dtype", type(vectors).__name__)
        raise VectorError(f"{source}: the vectors are {arrived}; expected float32.")
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise VectorError(
            f"{source}: the vectors have shape {vectors.shape}; expected (N, {dimension})."
        )
    bad = find_bad_row(vectors)
    if bad is not None:
        raise VectorError(f"{source}: row {bad} holds NaN or infinity.")
    return vectors


def find_bad_row(vectors: Vectors) -> int | None:
    """Return the first row that holds NaN or infinity, or None if all are finite."""
    finite = np.isfinite(vectors)
    return None if finite.all() else int(np.argmin(finite.all(axis=1)))


class VectorWriter:
    """Appends vectors to one .npy file.

    Every batch reaches the file at once, so the memory used does not grow with the shard. The
    header says 0 rows until the file is complete.

    Parameters
    ----------
    path : the file, replaced if it is there.
    dimension : D of every vector.
    vector_type : what a number is stored as: "float32", or "float16" for half the size.
    """

    def __init__(self, path: Path, dimension: int, vector_type: str = "float32") -> None:
        self._type = VECTOR_TYPES[vector_type]
        self.path = path
        self.dimension = dimension
        self.rows = 0
        self._stream: BinaryIO = path.open("wb")
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            with self._stream as stream:
                stream.seek(0)
                self._write_header()
            return
        with suppress(OSError):  # an error is on its way already, and says more
            self._stream.close()

    def append(self, vectors: Vectors) -> None:
        """Write finite float32 (N, D) to the end.

        Raises
        ------
        VectorError : a number is too large for float16.
        OSError : the disk refuses.
        """
        if self._type.itemsize < 4 and len(vectors) and np.abs(vectors).max() > FLOAT16_MAX:
            raise VectorError(
                f"A vector holds {np.abs(vectors).max():.4g}, and float16 ends at {FLOAT16_MAX:,}. "
                "Store the vectors as float32."
            )
        self._stream.write(np.ascontiguousarray(vectors, dtype=self._type).data)
        self._stream.flush()
        self.rows += len(vectors)

    def _write_header(self) -> None:
        # numpy pads the header so that the row count can grow in place.
        shape = (self.rows, self.dimension)
        np.lib.format.write_array_header_1_0(
            self._stream, {"descr": self._type.str, "fortran_order": False, "shape": shape}
        )


class Shards:
    """Reads the vectors of an index, in order or by row, memory-mapped.

    Parameters
    ----------
    files : in the order of their rows.
    dimension : D of every vector.

    Raises
    ------
    IndexCorruptError : a shard is not float32 or float16 (n, dimension), or is truncated; and
        whenever vectors are read, a block of a file is not what was written.
    """

    def __init__(self, files: Sequence[StoredFile], dimension: int) -> None:
        self.dimension = dimension
        self._shards = [_Shard(file, dimension) for file in files]
        self._ends = np.cumsum([len(shard) for shard in self._shards], dtype=np.int64)

    def __len__(self) -> int:
        """Return N, the number of vectors."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[Vectors]:
        """Yield float32 (n, D) blocks of at most 16 MiB, in order."""
        step = self.block_rows
        for shard in self._shards:
            for start in range(0, len(shard), step):
                yield shard.read_span(start, start + step)
                shard.let_go()

    @property
    def block_rows(self) -> int:
        """How many vectors a block of 16 MiB holds."""
        return max(1, BLOCK_BYTES // (4 * self.dimension))

    def rows(self, rows: Rows) -> Vectors:
        """Return float32 (..., D), one vector for each row number, of which any shape may come."""
        if len(self._shards) == 1:
            return self._shards[0].read_rows(rows)
        order = np.argsort(rows, axis=None)
        rising = rows.ravel()[order]
        shard_of = np.searchsorted(self._ends, rising, side="right")
        changes = np.flatnonzero(shard_of[1:] != shard_of[:-1]) + 1
        found = np.empty((rows.size, self.dimension), dtype=np.float32)
        for start, stop in pairwise([0, *changes.tolist(), rows.size] if rows.size else []):
            number = shard_of[start]
            shard = self._shards[number]
            first = self._ends[number] - len(shard)
            found[order[start:stop]] = shard.read_rows(rising[start:stop] - first)
        return found.reshape(*rows.shape, self.dimension)

    def sample(self, count: int, *, seed: int) -> Vectors:
        """Return ``count`` different rows (or all, if fewer), in order, equal for equal seeds."""
        if count >= len(self):
            rows = np.arange(len(self), dtype=np.int64)
        else:
            chosen = np.random.default_rng(seed).choice(len(self), count, replace=False)
            rows = np.sort(chosen).astype(np.int64)
        return self.rows(rows)

    def path_of(self, row: int) -> Path:
        """Return the file that holds a row."""
        return self._shards[int(np.searchsorted(self._ends, row, side="right"))].path


class _Shard:
    """One file of ``Shards``; its rows are counted from 0."""

    def __init__(self, file: StoredFile, dimension: int) -> None:
        self.path = file.path
        mapped = _map_shard(file.path, dimension)
        self._mapped: mmap.mmap = getattr(mapped, "_mmap")  # noqa: B009
        self._array: npt.NDArray[np.floating[Any]] = np.asarray(mapped)
        self._row_bytes = dimension * mapped.itemsize
        self._start = len(self._mapped) - mapped.nbytes
        self._blocks = Blocks(file, from_memory(memoryview(self._mapped)))

    def __len__(self) -> int:
        return len(self._array)

    def read_rows(self, rows: Rows) -> Vectors:
        if self._blocks.left:
            self._blocks.check_each(self._start + rows.ravel() * self._row_bytes, self._row_bytes)
        return np.asarray(self._array.take(rows, axis=0), dtype=np.float32)

    def read_span(self, start: int, stop: int) -> Vectors:
        part = self._array[start:stop]
        first = self._start + start * self._row_bytes
        self._blocks.check(first, first + len(part) * self._row_bytes)
        return np.asarray(part, dtype=np.float32)

    def let_go(self) -> None:
        """Drop the mapped file from this process's memory; the next read maps it again."""
        if hasattr(self._mapped, "madvise"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


def read_array(path: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    """Return the array in a .npy file.

    Raises
    ------
    ValueError : the file holds none.
    StorageError : this user may not read it.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None)
    except PermissionError:
        raise unreadable(path) from None
    except (OSError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    except tokenize.TokenError as error:
        raise ValueError("its header cannot be read") from error
    return array


def _map_shard(path: Path, dimension: int) -> np.memmap[Any, np.dtype[np.floating[Any]]]:
    try:
        array = read_array(path, mapped=True)
    except ValueError as error:
        raise IndexCorruptError(f"{path} cannot be read: {error}") from error
    known = array.dtype in VECTOR_TYPES.values() and array.flags.c_contiguous
    if not known or array.ndim != 2 or array.shape[1] != dimension:
        raise IndexCorruptError(
            f"{path} holds {array.dtype} {array.shape}; expected {' or '.join(VECTOR_TYPES)} (n, "
            f"{dimension})."
        )
    if not isinstance(array, np.memmap) or array.offset + array.nbytes != path.stat().st_size:
        raise IndexCorruptError(f"{path} does not end with its last vector.")
    return array
