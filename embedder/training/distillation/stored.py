"""A teacher's vectors as ``millpond embed`` wrote them, found by the hash of their text."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from retrieval.errors import SourceNotFoundError, StorageError, UsageError
from retrieval.protocols import Rows, Vectors
from retrieval.texts import text_digest
from retrieval.types import Fingerprint

__all__ = ["StoredVectors", "digests_of"]

Digests = npt.NDArray[np.void]

_DIGEST = np.dtype("V16")
_FINGERPRINT, _ROLE = b"millpond.fingerprint", b"millpond.role"
_AGAIN = "Make it anew: millpond embed TEXTS --model TEACHER --out FILE"


def digests_of(texts: Sequence[str]) -> Digests:
    """Return (N,), 16 bytes a text, as ``text_digest`` gives them."""
    joined = b"".join(text_digest(text) for text in texts)
    return cast(Digests, np.frombuffer(joined, dtype=_DIGEST))


class StoredVectors:
    """The vectors of one or several files, in one array that is mapped into memory.

    They are copied to a private temporary file, so later changes of the files have no effect.

    Parameters
    ----------
    path : a .parquet file of ``millpond embed``, or a folder of such files of one model.

    Attributes
    ----------
    fingerprint : of the model that made them.
    roles : "query", "document", or both.
    width : W.

    Raises
    ------
    SourceNotFoundError : there is no such file.
    UsageError : no file of ``millpond embed``, files of two models, or a vector with NaN.
    StorageError : a file cannot be read, or the temporary folder is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files = _find_files(path)
        heads = [_read_head(file) for file in files]
        self.fingerprint, self.width = heads[0][0], heads[0][2]
        for file, (fingerprint, _, _) in zip(files, heads, strict=True):
            if fingerprint != self.fingerprint:
                differing = "; ".join(self.fingerprint.differences(fingerprint))
                raise UsageError(
                    f"{file}: made by another model than {files[0].name}: {differing}. Keep the "
                    f"vectors of one teacher in a folder."
                )
        self.roles = {role for _, role, _ in heads}
        digests: dict[str, list[bytes]] = {role: [] for role in self.roles}
        places: dict[str, list[int]] = {role: [] for role in self.roles}
        store = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as self
        weakref.finalize(self, store.close)
        count = 0
        try:
            for file, (_, role, _) in zip(files, heads, strict=True):
                for found, vectors in _read_rows(file):
                    store.write(vectors.tobytes())
                    digests[role] += found
                    places[role] += range(count, count + len(found))
                    count += len(found)
            store.flush()
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: the teacher's vectors cannot be kept "
                f"({error.strerror}). Free some space, or name another folder in TMPDIR."
            ) from error
        if not count:
            raise UsageError(f"{path}: it holds no vector. {_AGAIN}.")
        self._rows = np.memmap(store, dtype=np.float32, mode="r", shape=(count, self.width))
        self._found = {
            role: _Lookup(b"".join(digests[role]), np.array(places[role])) for role in self.roles
        }

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, digests: Digests, role: str) -> Rows:
        """Return (N,) int64, the row of each text embedded in this role, -1 where it has none."""
        if role not in self._found:
            return np.full(len(digests), -1, dtype=np.int64)
        return self._found[role](digests)

    def take(self, rows: Rows) -> Vectors:
        """Return the vectors (N, W) float32 of rows that ``find`` gave."""
        return np.asarray(self._rows[rows])


class _Lookup:
    """Rows by digest."""

    def __init__(self, joined: bytes, places: Rows) -> None:
        digests = np.frombuffer(joined, dtype=_DIGEST)
        self._order = np.argsort(digests.view(">u8").reshape(-1, 2)[:, 0], kind="stable")
        self._keys = digests.view(">u8").reshape(-1, 2)[:, 0][self._order].astype(np.uint64)
        self._digests = digests[self._order]
        self._places = places[self._order]

    def __call__(self, digests: Digests) -> Rows:
        keys = digests.view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        same = self._digests[at] == digests
        return np.where(same, self._places[at], -1).astype(np.int64)


def _find_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        what = "the folder holds no .parquet file" if path.is_dir() else "there is no such file"
        raise SourceNotFoundError(f"{path}: {what}; see teacher.vectors. {_AGAIN}.")
    return files


def _read_head(file: Path) -> tuple[Fingerprint, str, int]:
    """Return who made the vectors, in which role, and their width."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        metadata = schema.metadata or {}
        fingerprint = Fingerprint.from_json(json.loads(metadata[_FINGERPRINT]))
        width = int(schema.field("embedding").type.list_size)
        schema.field("text_hash")
        return fingerprint, metadata[_ROLE].decode(), width
    except OSError as error:
        raise StorageError(f"{file}: cannot be read ({error.strerror or error}).") from error
    except (pa.ArrowException, ValueError, KeyError, AttributeError) as error:
        raise UsageError(
            f"{file}: expected a file that this version of millpond embed wrote, with the columns "
            f"embedding and text_hash ({error}). {_AGAIN}."
        ) from error


def _read_rows(file: Path) -> Iterator[tuple[list[bytes], Vectors]]:
    """Yield digests and vectors (n, W), all finite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    read = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(columns=["embedding", "text_hash"]):
            column: Any = batch.column("embedding")
            vectors = column.flatten().to_numpy().reshape(len(batch), -1)
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if len(bad):
                raise UsageError(
                    f"{file}: row {read + int(bad[0]) + 1:,} holds NaN or infinity. {_AGAIN}."
                )
            read += len(batch)
            yield batch.column("text_hash").to_pylist(), vectors
    except pa.ArrowException as error:
        raise StorageError(f"{os.fspath(file)}: cannot be read ({error}). {_AGAIN}.") from error
