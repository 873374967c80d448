"""Qdrant's own engine in this process, its files in the index folder.

Found with qdrant-edge-py 0.9.0, and relied on here:

- The write-ahead log is what locks a shard, against readers too. We build in a staging folder
  that is renamed when it is whole, so the log protects nothing; without it any number of
  processes read the same index.
- Opening a shard writes: its JSON files are replaced, all others are opened for writing. The index
  must stay as it is, so a reader opens an overlay: a temporary folder of links and a few copies.
- The folder may be deleted under an open shard; it goes on answering.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from indexes.backends.qdrant.filters import list_payload_indexes, make_edge_filter, make_filter
from indexes.backends.qdrant.options import SEARCH_BREADTH, Factory, load_edge
from indexes.backends.qdrant.points import ROW, Payload, read_batches
from indexes.search.ranking import Found
from indexes.search.selection import Selection
from indexes.storage.documents import DocumentStore
from indexes.storage.files import damaged
from indexes.storage.vectors import Shards
from retrieval import Vectors
from retrieval.disk import FULL_DISK
from retrieval.errors import IndexCorruptError, StorageError

FLUSH_BATCHES = 64
INDEXING_THRESHOLD_KB = 1
FULL_SCAN_THRESHOLD_KB = 10
SPARE_BYTES = 16 * 2**20
POINT_OVERHEAD_BYTES = 300
SEGMENTS = "segments"
COPIED_SUFFIXES = (".json", ".info")
RESEND_SECONDS = 0.05
"""How long a Ctrl-C that came inside a finaliser is held back after it."""


def build_shard(
    path: Path,
    factory: Factory,
    vectors: Shards,
    documents: DocumentStore,
    payload: Payload,
) -> None:
    """Write all live documents as a Qdrant shard to the new folder ``path``.

    Raises
    ------
    StorageError : the engine refuses, or does not hold what was written; or the disk is too full:
        the engine maps its files, so that running out of disk while it writes would kill the
        process.
    """
    edge = load_edge()
    _check_space(path.parent, factory, vectors, documents)
    with _engine_errors(path, reading=False):
        shard = edge.EdgeShard.create(str(path), _config(edge, factory, vectors.dimension))
        try:
            expected = _fill(edge, shard, vectors, documents, payload)
            if not factory.exact:
                shard.optimize()
                shard.flush()
        finally:
            shard.close()
    stored = EdgeSearcher(path).count()
    if stored != expected:
        raise StorageError(f"{path} holds {stored} points after {expected} were written.")


def _fill(
    edge: Any, shard: Any, vectors: Shards, documents: DocumentStore, payload: Payload
) -> int:
    """Write every live document; return their number."""
    for name, kind in list_payload_indexes(payload.schema).items():
        index = getattr(edge.PayloadSchemaType, kind.capitalize())
        shard.update(edge.UpdateOperation.create_field_index(name, index))
    count = 0
    for number, batch in enumerate(read_batches(vectors, documents, payload), start=1):
        points = [edge.Point(key, vector.tolist(), carried) for key, vector, carried in batch]
        shard.update(edge.UpdateOperation.upsert_points(points))
        count += len(points)
        if number % FLUSH_BATCHES == 0:
            shard.flush()
    shard.flush()
    return count


class EdgeSearcher:
    """Asks the shard in folder ``path`` for candidates; implements ``Candidates``.

    Raises
    ------
    StorageError : another process holds the shard, or a file cannot be opened.
    IndexCorruptError : the engine cannot read its files, or a file is gone, as it is for a reader
        whose index is replaced meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._edge = load_edge()
        self._path = path
        try:
            overlay = _make_overlay(path)
        except OSError as error:
            raise _explain_overlay(path, error) from error
        try:
            with _engine_errors(path, reading=True):
                self._shard = self._edge.EdgeShard.load(str(overlay))
        except BaseException:
            _remove_overlay(overlay)
            raise
        weakref.finalize(self, _release, self._shard, overlay, os.getpid())

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows, best first."""
        edge = self._edge
        matching = None
        if selection.plan is not None:
            matching = make_edge_filter(make_filter(selection.plan))
        params = edge.SearchParams(exact=exact, hnsw_ef=max(SEARCH_BREADTH, wanted))
        requests = [
            edge.QueryRequest(
                limit=wanted,
                query=edge.Query.Nearest(vector),
                params=params,
                filter=matching,
                with_payload=[ROW],
            )
            for vector in queries.tolist()
        ]
        with _engine_errors(self._path, reading=True):
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [
            (
                np.array([point.score for point in points], dtype=np.float32),
                np.array([point.payload[ROW] for point in points], dtype=np.int64),
            )
            for points in answers
        ]

    def count(self) -> int:
        """Return the number of points in the shard."""
        return int(self._shard.count(self._edge.CountRequest(exact=True)))


def _release(shard: Any, overlay: Path, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child; its parent still reads
    with _later_interrupt():
        with suppress(Exception):  # nothing was changed, so there is nothing to lose
            shard.close()
        _remove_overlay(overlay)


def _config(edge: Any, factory: Factory, dimension: int) -> Any:
    # Dot and not Cosine: the numbers stay as the encoder made them, and for vectors of length 1
    # the two are the same. Cosine would rank other vectors unlike the FAISS backend does.
    params = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)
    if factory.exact:
        return edge.EdgeConfig(vectors=params, wal_enabled=False)
    graph = edge.HnswIndexConfig(
        m=factory.m,
        ef_construct=factory.ef_construct,
        full_scan_threshold=FULL_SCAN_THRESHOLD_KB,
    )
    # One segment, indexed from 1 kB on: who types HNSW gets a graph, of a small corpus too.
    optimizers = edge.EdgeOptimizersConfig(
        indexing_threshold=INDEXING_THRESHOLD_KB, default_segment_number=1
    )
    return edge.EdgeConfig(
        vectors=params, hnsw_config=graph, optimizers=optimizers, wal_enabled=False
    )


def _check_space(folder: Path, factory: Factory, vectors: Shards, documents: DocumentStore) -> None:
    """Raise StorageError if the disk cannot hold the shard."""
    copies = 1 if factory.exact else 2  # the optimizer writes a second segment
    links = 8 * factory.m
    ids = documents.bytes // max(1, len(documents))  # an id is no longer than this
    point = 4 * vectors.dimension + links + POINT_OVERHEAD_BYTES + min(ids, 128)
    needed = copies * point * len(vectors) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"The disk of {folder} has {free / 1e6:.1f} MB free, and Qdrant's files may need "
            f"{needed / 1e6:.1f} MB. Free some space and run the same command again."
        )


@contextmanager
def _engine_errors(path: Path, *, reading: bool) -> Iterator[None]:
    """Turn the engine's bare Exceptions and panics into errors of ours."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"
        if type(error) is not Exception and not panic:
            raise
        reason = " ".join(str(error).split()).removeprefix("Service runtime error: ")
        raise _explain(path, reason, reading) from None


def _explain(path: Path, reason: str, reading: bool) -> Exception:
    if "WouldBlock" in reason:
        return StorageError(
            f"Another process has the Qdrant index {path} open, and it was made so that only one "
            "may. End the other process, or index the corpus again with --overwrite."
        )
    if "os error 28" in reason or "os error 122" in reason:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if "os error 13" in reason or "os error 30" in reason:
        return StorageError(
            f"The Qdrant engine may not open its files in {path}: {reason}. Change their "
            "permissions, or search a copy of the index."
        )
    if reading:
        return damaged(path, reason)
    return StorageError(f"The Qdrant engine could not write {path}: {reason}.")


def _make_overlay(shard: Path) -> Path:
    """Return a new temporary folder that shows the files of ``shard``.

    Files that this user may not write are copied, since the engine opens all files for writing.
    Everything is copied if the system allows no links.

    Raises
    ------
    OSError : a file cannot be read, or the temporary folder is full or not writable.
    """
    shard = shard.resolve()
    overlay = Path(tempfile.mkdtemp(prefix="millpond-qdrant-"))
    try:
        _show(shard, overlay)
        for segment in (shard / SEGMENTS).iterdir():
            (overlay / SEGMENTS / segment.name).mkdir(parents=True)
            _show(segment, overlay / SEGMENTS / segment.name)
    except BaseException:
        _remove_overlay(overlay)
        raise
    return overlay


def _remove_overlay(overlay: Path) -> None:
    """Delete the overlay; the files that it shows stay."""
    shutil.rmtree(overlay, ignore_errors=True)


def _show(folder: Path, target: Path) -> None:
    """Link or copy each entry of ``folder`` into ``target``, but for the segments' folder."""
    for source in folder.iterdir():
        if source.name == SEGMENTS:
            continue
        place = target / source.name
        if source.suffix not in COPIED_SUFFIXES and _link(source, place):
            continue
        _copy(source, place)


def _copy(source: Path, place: Path) -> None:
    """Copy a file or a folder; unlike ``shutil.copytree``, raise what went wrong."""
    if not source.is_dir():
        shutil.copyfile(source, place)
        return
    place.mkdir()
    for entry in source.iterdir():
        _copy(entry, place / entry.name)


def _link(source: Path, place: Path) -> bool:
    # A folder as a whole: the engine counts the files in it, and a link is none.
    inside = list(source.rglob("*")) if source.is_dir() else [source]
    if not inside or not all(_is_writable(path) for path in inside):
        return False
    with suppress(OSError):
        place.symlink_to(source, target_is_directory=source.is_dir())
        return True
    return False


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _explain_overlay(shard: Path, error: OSError) -> Exception:
    """Return the error of ours for one of ``_make_overlay``."""
    file = Path(error.filename or tempfile.gettempdir())
    ours = file.is_relative_to(shard.resolve())
    if ours and isinstance(error, FileNotFoundError | NotADirectoryError):
        return IndexCorruptError(f"{file} is missing. Index the corpus again with --overwrite.")
    advice = "Name another place for temporary files in TMPDIR"
    if error.errno in FULL_DISK:
        advice = "Free some space there, or name another place in TMPDIR"
    elif ours:
        advice = "Change its permissions, or search a copy of the index"
    return StorageError(
        f"The Qdrant index {shard} cannot be opened: {file}: {error.strerror}. {advice}."
    )


@contextmanager
def _later_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until shortly afterwards, for use in a finaliser.

    There, Python would print a traceback for KeyboardInterrupt and then forget it.
    """
    previous = signal.getsignal(signal.SIGINT)
    main = threading.main_thread()
    if threading.current_thread() is not main or not callable(previous):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if came and main.ident is not None:
            again = (main.ident, signal.SIGINT)
            timer = threading.Timer(RESEND_SECONDS, signal.pthread_kill, again)
            timer.daemon = True
            with suppress(RuntimeError):  # the interpreter ends anyway
                timer.start()
