"""The teacher of a run: its vectors of any texts, computed, or stored by ``millpond embed``."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from embedder.loading import LoadedEncoder, load_encoder
from embedder.models.bases import BASES
from embedder.models.locate import locate_base
from embedder.models.names import (
    DEFAULT_VARIANT,
    PREFIX,
    find_saved_model,
    is_folder,
    split_name,
)
from embedder.training.distillation.options import TeacherConfig, short_name
from embedder.variants import parse_model_name
from retrieval.errors import ModelError, SourceNotFoundError, StorageError, UsageError
from retrieval.protocols import Notify, Rows, Vectors, silent
from retrieval.scores import unit_rows
from retrieval.texts import text_digest
from retrieval.types import Fingerprint

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


TeacherText = tuple[bool, str]
"""Whether a text is a query, and the text."""

_ROLES = {True: "query", False: "document"}
_SHOWN = 60
_LOOKED_UP = 4_096


class Teacher:
    """Gives the vectors of any texts, at length 1.

    Parameters
    ----------
    encoder : computes what is not stored; None where everything is.
    stored : vectors that were made before.

    Attributes
    ----------
    width : W.
    fingerprint : what decides its vectors.
    """

    def __init__(
        self, encoder: LoadedEncoder | None, stored: StoredVectors | None, name: str
    ) -> None:
        self.encoder, self.stored, self.name = encoder, stored, name
        self.computed = 0
        known = stored or encoder
        assert known is not None  # TeacherConfig sees to it
        self.fingerprint: Fingerprint = known.fingerprint
        self.width = stored.width if stored else int(encoder.dimension) if encoder else 0
        settings = self.fingerprint.settings
        self.query_prompt = str(settings.get("query_prompt") or "")
        self.document_prompt = str(settings.get("document_prompt") or "")

    def embed(self, texts: Sequence[TeacherText]) -> Vectors:
        """Return (N, W) float32 of length 1, a row a text.

        Raises
        ------
        UsageError : a text has no stored vector, and there is no model.
        """
        return unit_rows(self.embed_raw(texts))

    def embed_raw(self, texts: Sequence[TeacherText]) -> Vectors:
        """Return (N, W) float32 as ``embed``, at the lengths that the model gives."""
        return encode_sides(self._embed_side, texts, self.width)

    def count_missing(self, texts: Iterable[TeacherText]) -> tuple[int, str]:
        """Return how many texts have no stored vector, and the first of them."""
        missing, first = 0, ""
        stream = iter(texts)
        while chunk := list(islice(stream, _LOOKED_UP)):
            for is_query in (True, False):
                side = [text for asked, text in chunk if asked is is_query]
                lost: Rows = np.flatnonzero(self._find(is_query, side) < 0)
                missing += len(lost)
                if len(lost) and not first:
                    first = side[int(lost[0])]
        return missing, first

    def record(self) -> dict[str, Any]:
        """Return what identifies the teacher, for the record of the run."""
        return {
            "model": short_name(self.name),
            "sha256": self.fingerprint.digest,
            "width": self.width,
            "stored_vectors": len(self.stored) if self.stored else 0,
        }

    def _find(self, is_query: bool, texts: Sequence[str]) -> Rows:
        if self.stored is None or not texts:
            return np.full(len(texts), -1, dtype=np.int64)
        digests = digests_of(texts)
        rows = self.stored.find(digests, _ROLES[is_query])
        if self.query_prompt == self.document_prompt:  # then the role makes no difference
            other = self.stored.find(digests, _ROLES[not is_query])
            rows = np.where(rows < 0, other, rows)
        return rows

    def _embed_side(self, is_query: bool, texts: Sequence[str]) -> Vectors:
        rows = self._find(is_query, texts)
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        stored, missing = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        if len(stored) and self.stored is not None:
            vectors[stored] = self.stored.take(rows[stored])
        if len(missing):
            if self.encoder is None:
                first = texts[int(missing[0])][:_SHOWN]
                raise UsageError(f"The teacher has no vector of {first!r}.")
            lost = [texts[i] for i in missing.tolist()]
            vectors[missing] = encode_side(self.encoder, is_query, lost)
            self.computed += len(missing)
        return vectors


def encode_side(encoder: LoadedEncoder, is_query: bool, texts: Sequence[str]) -> Vectors:
    """Return (N, D) float32 of texts, queries with the query prompt."""
    return encoder.encode_queries(texts) if is_query else encoder.encode_documents(texts)


def encode_sides(
    encode: Callable[[bool, list[str]], Vectors], texts: Sequence[TeacherText], width: int
) -> Vectors:
    """Return (N, width) float32 of texts, by one call for queries and one for documents."""
    vectors = np.empty((len(texts), width), dtype=np.float32)
    for is_query in (True, False):
        places = [i for i, (asked, _) in enumerate(texts) if asked is is_query]
        if places:
            vectors[places] = encode(is_query, [texts[i][1] for i in places])
    return vectors


def check_teacher(config: TeacherConfig) -> None:
    """Raise what ``load_teacher`` does of files that are not there or of another kind.

    Nothing is loaded, and no model hub is asked.
    """
    for file in () if config.vectors is None else _find_files(config.vectors):
        _read_head(file)
    if config.model is None:
        return
    _refuse_pickles(config.model)
    if config.model.startswith(PREFIX):
        from embedder.models.sentence_transformers import find_folder

        find_folder(config.model)
    elif find_saved_model(config.model) is None:
        base = parse_model_name(split_name(config.model)[0], DEFAULT_VARIANT).base
        if base not in BASES and not is_folder(base):
            locate_base(base, None, silent)


def load_teacher(config: TeacherConfig, device: str, notify: Notify) -> Teacher:
    """Return the teacher that a config names.

    Raises
    ------
    UsageError : the stored vectors are of another model than ``config.model``.
    ModelError, SourceNotFoundError, UnknownNameError, DownloadError, StorageError : it cannot be
        loaded; a folder without safetensors, or one that needs code of its own, is refused.
    """
    stored = None if config.vectors is None else StoredVectors(config.vectors)
    encoder = None
    if config.model is not None:
        _refuse_pickles(config.model)
        encoder = load_encoder(
            config.model, device, notify=notify, trust_remote_code=config.trust_remote_code
        )
    if stored is not None and encoder is not None:
        differing = stored.fingerprint.differences(encoder.fingerprint)
        if differing:
            raise UsageError(
                f"teacher.vectors ({config.vectors}) are not of teacher.model ({config.model}): "
                f"{'; '.join(differing)}. Embed the texts again with this model."
            )
    name = config.model or (stored.fingerprint.model if stored else "")
    return Teacher(encoder, stored, name)


def _refuse_pickles(model: str) -> None:
    """Raise ModelError for a folder whose weights are pickles, which can run code."""
    folder = Path(model.removeprefix(PREFIX))
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for kind in ("*.bin", "*.pt") for path in folder.glob(kind))
    if pickles:
        raise ModelError(
            f"{folder}: its weights are in {pickles[0]}, a pickle, which can run code and is not "
            f"read; expected .safetensors files. Save the model again with safetensors, or give "
            f"vectors that it made."
        )
