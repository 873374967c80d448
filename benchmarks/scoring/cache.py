"""Vectors and indexes that are made once and shared by all tasks and metrics of a results folder.

::

    RESULTS/.cache/
      vectors/<key>.npy, <key>.json    vectors of a list of texts, and what making them cost
      indexes/<key>/, <key>.costs.json an index of a corpus, and what making it cost
      shared/                          vectors that one model's pass made for another
      known/                           see ``benchmarks.scoring.remembered``

All of it can be deleted; it will be made again when it is needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scoring.costs import PeakMemory, resident_bytes
from benchmarks.scoring.models import LoadedModel
from benchmarks.scoring.remembered import digest
from benchmarks.scoring.sharing import encode_shared
from indexes import Index, IndexConfig
from indexes.storage.manifest import MANIFEST_NAME
from indexes.storage.vectors import check_vectors
from retrieval import Corpus, Fingerprint, Progress, Query, Vectors
from retrieval.disk import keep_vectors, make_folder, read_kept_vectors, replace_file
from retrieval.errors import IndexCorruptError, SourceNotFoundError
from retrieval.protocols import no_progress
from retrieval.typed import load_json, read_stored

if TYPE_CHECKING:
    from embedder.splitting import CountedDocuments

BATCH_TEXTS = 1024

ShowProgress = Callable[[str, int | None, str], AbstractContextManager[Progress]]
"""Label, total and unit to a context that gives a function to call with finished items."""


@contextmanager
def show_nothing(label: str, total: int | None, unit: str) -> Iterator[Progress]:
    """Ignore progress."""
    yield no_progress


@dataclass(frozen=True)
class Work:
    """What embedding cost when it was done.

    Attributes
    ----------
    tokens : that the model read, padding not counted; None where that is not known.
    encode_seconds : within the encoder.
    seconds : of the whole, such as building the index.
    waited_seconds : the part of both that an earlier pass for another model took.
    """

    tokens: int | None
    encode_seconds: float
    seconds: float
    peak_memory_bytes: int
    waited_seconds: float = 0.0


@dataclass(frozen=True)
class Searchable:
    """A corpus and the queries that are asked of it.

    Attributes
    ----------
    sha256 : of the documents.
    count : of the documents.
    """

    documents: Corpus | CountedDocuments
    count: int
    sha256: str
    queries: Sequence[Query]


@dataclass(frozen=True)
class CachedIndex:
    """An index of a corpus.

    Attributes
    ----------
    bytes : on disk.
    work : what making it cost; None where a kill at the very end left that unknown.
    is_new : whether it was made just now.
    """

    index: Index
    bytes: int
    work: Work | None
    is_new: bool


class KeptVectors:
    """A folder of the vectors of lists of texts, and what making them cost.

    Parameters
    ----------
    folder : made when something is first kept; can be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(
        self, model: LoadedModel, side: str, texts: Sequence[str], vectors: Vectors, work: Work
    ) -> None:
        """Keep the vectors of texts; their cost is written first, so that it is there with them.

        Raises
        ------
        StorageError : the disk refuses.
        """
        path = self._path(model, side, texts)
        make_folder(path.parent)
        replace_file(path.with_suffix(".json"), _to_json(work))
        keep_vectors(path, vectors)

    def read(
        self, model: LoadedModel, side: str, texts: Sequence[str]
    ) -> tuple[Vectors, Work] | None:
        """Return what was kept for these texts; None if there is nothing, or it is damaged."""
        path = self._path(model, side, texts)
        work = _read_work(path.with_suffix(".json"))
        vectors = read_kept_vectors(path, (len(texts), model.encoder.dimension))
        return None if work is None or vectors is None else (vectors, work)

    def take(
        self, model: LoadedModel, side: str, texts: Sequence[str]
    ) -> tuple[Vectors, Work] | None:
        """Return what was kept for these texts and delete it."""
        found = self.read(model, side, texts)
        if found is not None:
            self._path(model, side, texts).unlink()
            self._path(model, side, texts).with_suffix(".json").unlink()
        return found

    def _path(self, model: LoadedModel, side: str, texts: Sequence[str]) -> Path:
        key = digest([model.encoder.fingerprint.digest, side, digest(list(texts))])
        return self._folder / f"{key[:32]}.npy"


class Cache:
    """The shared vectors and indexes of a results folder.

    Parameters
    ----------
    folder : made when something is first kept.
    progress : shows how far embedding is.
    """

    def __init__(self, folder: Path, progress: ShowProgress) -> None:
        self._folder = folder
        self.progress = progress
        self._vectors = KeptVectors(folder / "vectors")
        self._shared = KeptVectors(folder / "shared")

    def embed(
        self, model: LoadedModel, texts: Sequence[str], side: str = "query"
    ) -> tuple[Vectors, Work, bool]:
        """Return float32 (N, D) with the prompt of a side, what it cost, and whether it is new.

        Raises
        ------
        ModelError, VectorError : the model gave NaN, infinity or a wrong shape.
        StorageError : the vectors cannot be kept.
        """
        encoder = model.encoder
        kept = self._vectors.read(model, side, texts)
        if kept is not None:
            return *kept, False
        meter = _Meter(model, side, self._shared)
        encode = meter.encode_queries if side == "query" else meter.encode_documents
        vectors = np.empty((len(texts), encoder.dimension), dtype=np.float32)
        started = time.perf_counter()
        with (
            PeakMemory(model.device) as memory,
            self.progress("Embedding texts", len(texts), "texts") as advance,
        ):
            for start in range(0, len(texts), BATCH_TEXTS):
                batch = texts[start : start + BATCH_TEXTS]
                found = check_vectors(
                    encode(batch),
                    encoder.dimension,
                    source=f"Texts {start} to {start + len(batch) - 1}",
                )
                vectors[start : start + len(batch)] = found
                advance(len(batch))
        work = meter.work(time.perf_counter() - started, memory.bytes)
        self._vectors.keep(model, side, texts, vectors, work)
        return vectors, work, True

    def index(
        self, model: LoadedModel, corpus: Searchable, backend: str, factory: str
    ) -> CachedIndex:
        """Return the index of a corpus; it is built if it is not there.

        For a model that blends it has the lexical arm as well. That one is built from the one
        without; nothing is embedded.

        Raises
        ------
        MillpondError : as ``indexes.Index.create``.
        """
        parts = [model.encoder.fingerprint.digest, corpus.sha256, backend, factory]
        folder = self._folder / "indexes" / digest(parts)[:32]
        kind = IndexConfig(
            backend=backend,
            factory=factory,
            arms=["dense"],
            corpus_name=corpus.documents.name,
            batch_documents=BATCH_TEXTS,
        )
        made = self._dense_index(model, corpus, kind, folder)
        if model.blend is None:
            return made
        both = folder.with_name(f"{folder.name}-both")
        try:
            index = Index.open(both)
            if index.snapshot.lexical is None:
                raise IndexCorruptError(str(index.snapshot.lexical_fault))
        except (SourceNotFoundError, IndexCorruptError):
            arms = ["dense", "lexical"]
            made.index.reindex(out=both, arms=arms, overwrite=(both / MANIFEST_NAME).exists())
            index = Index.open(both)
        return replace(made, index=index, bytes=_folder_bytes(both))

    def _dense_index(
        self, model: LoadedModel, corpus: Searchable, kind: IndexConfig, folder: Path
    ) -> CachedIndex:
        costs = folder.with_name(f"{folder.name}.costs.json")
        try:
            return CachedIndex(Index.open(folder), _folder_bytes(folder), _read_work(costs), False)
        except SourceNotFoundError:
            damaged = False
        except IndexCorruptError:
            damaged = True
        make_folder(folder.parent)
        costs.unlink(missing_ok=True)
        meter = _Meter(model, "document", self._shared)
        started = time.perf_counter()
        with (
            PeakMemory(model.device) as memory,
            self.progress("Indexing", corpus.count, "documents") as advance,
        ):
            overwrite = damaged and (folder / MANIFEST_NAME).exists()
            config = replace(kind, overwrite=overwrite)
            Index.create(folder, meter, corpus.documents, config, progress=advance)
        work = meter.work(time.perf_counter() - started, memory.bytes)
        replace_file(costs, _to_json(work))
        return CachedIndex(Index.open(folder), _folder_bytes(folder), work, True)


class _Meter:
    """An encoder that counts the tokens and the seconds of what it encodes.

    Where the model has sharers, one pass makes their vectors too, and they find them waiting. A
    pass counts in full for each model that it served.
    """

    def __init__(self, model: LoadedModel, side: str, shared: KeptVectors) -> None:
        self._model = model
        self.dimension: int = model.encoder.dimension
        self.fingerprint: Fingerprint = model.encoder.fingerprint
        self._side = side
        self._shared = shared
        self._tokens = 0
        self._seconds = 0.0
        self._waited_seconds = 0.0
        self._waited_memory = 0

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._measure(self._model.encoder.encode_queries, texts)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        return self._measure(self._model.encoder.encode_documents, texts)

    def _measure(self, encode: Callable[[Sequence[str]], Vectors], texts: Sequence[str]) -> Vectors:
        waiting = self._shared.take(self._model, self._side, texts)
        if waiting is not None:
            vectors, earlier = waiting
            self._seconds += earlier.seconds
            self._waited_seconds += earlier.seconds
            self._waited_memory = max(self._waited_memory, earlier.peak_memory_bytes)
        else:
            started = time.perf_counter()
            if self._model.sharers:
                vectors, *others = encode_shared(self._model, self._side, texts)
            else:
                vectors, others = encode(texts), []
            seconds = time.perf_counter() - started
            self._seconds += seconds
            for sharer, theirs in zip(self._model.sharers, others, strict=True):
                work = Work(None, seconds, seconds, resident_bytes())
                self._shared.keep(sharer, self._side, texts, theirs, work)
        if self._model.count_tokens is not None:
            self._tokens += self._model.count_tokens(texts, self._side)
        return vectors

    def work(self, seconds: float, peak_memory_bytes: int) -> Work:
        """Return what was counted."""
        tokens = None if self._model.count_tokens is None else self._tokens
        return Work(
            tokens,
            self._seconds,
            seconds + self._waited_seconds,
            max(peak_memory_bytes, self._waited_memory),
            self._waited_seconds,
        )


def _read_work(path: Path) -> Work | None:
    try:
        return read_stored(Work, load_json(path))
    except (OSError, ValueError):
        return None


def _to_json(work: Work) -> bytes:
    return (json.dumps(asdict(work)) + "\n").encode()


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
