"""Writes a corpus into an index folder: streaming, in bounded memory, resumable, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from indexes.backends.backend import Backend
from indexes.backends.registry import get_backend
from indexes.building import Origin, StoredRows, build_index
from indexes.folder import Workspace, check_target, open_workspace, storage_errors
from indexes.storage.manifest import Manifest
from indexes.storage.staging import Staging
from indexes.storage.vectors import VECTOR_TYPES, check_vectors, find_bad_row
from retrieval import Document, Encoder, Progress, Scalar, Vectors
from retrieval.errors import EmptyCorpusError, UnknownNameError, UsageError, VectorError
from retrieval.passages import Splitter, read_passages

__all__ = [
    "Engine",
    "WriteConfig",
    "check_encoded",
    "encode_in_turn",
    "read_chunks",
    "write_corpus",
]

CHUNK_CHARACTERS = 16 * 2**20

T = TypeVar("T")

Engine: TypeAlias = Callable[
    [Encoder, Iterator[list[Document]]], Iterator[tuple[Sequence[Document], Vectors]]
]
"""Takes an encoder and chunks of documents; yields every chunk, in order, with its vectors."""


@dataclass(frozen=True)
class WriteConfig:
    """How a corpus is indexed.

    Attributes
    ----------
    backend : one of ``list_backends()``.
    factory : the backend's description of the index type; for faiss a factory string.
    overwrite : replace an index that is already there.
    restart : drop what an unfinished run has embedded, instead of going on from it.
    corpus_name : kept in the manifest and used in messages.
    reading : how the corpus is read ("limit", "skip_bad"); a run that goes on needs the same.
    vector_type : what the numbers of a vector are stored as: "float32", or "float16" for half
        the size and three digits.
    passages : how documents are cut, kept in the manifest and part of what a run that goes on
        needs alike; empty where ``write_corpus`` gets no ``split``.
    batch_documents : how many documents the encoder is handed at a time (fewer when they are
        longer than 16 Mi characters together).
    """

    backend: str = "faiss"
    factory: str = "Flat"
    overwrite: bool = False
    restart: bool = False
    corpus_name: str = ""
    reading: Mapping[str, Scalar] = field(default_factory=dict)
    vector_type: str = "float32"
    passages: Mapping[str, int] = field(default_factory=dict)
    batch_documents: int = 1024

    def __post_init__(self) -> None:
        """Raise UsageError for a value that is never accepted."""
        get_backend(self.backend)
        if self.vector_type not in VECTOR_TYPES:
            raise UnknownNameError("vector type", self.vector_type, VECTOR_TYPES)
        if self.batch_documents < 1:
            raise UsageError(f"batch_documents is {self.batch_documents}; it must be 1 or more.")

    @property
    def source(self) -> str:
        """How messages name the corpus."""
        return self.corpus_name or "corpus"


def write_corpus(
    encoder: Encoder,
    documents: Iterable[Document],
    path: Path | str,
    config: WriteConfig | None = None,
    *,
    store: Backend | None = None,
    engine: Engine | None = None,
    split: Splitter | None = None,
    skipped: Callable[[], int] | None = None,
    progress: Progress | None = None,
    resumed: Progress | None = None,
) -> Manifest:
    """Encode ``documents``, write the index folder ``path`` and return its manifest.

    Until the last step, one rename, readers find what was there before: nothing, or the earlier
    index. What was embedded survives an error, Ctrl-C and a kill in finished shards; the same
    call goes on from the last of them and ends with the same ids and vectors as one that was
    never broken off.

    Parameters
    ----------
    encoder : its ``dimension`` and ``fingerprint`` go into the manifest.
    documents : read once, a chunk at a time.
    path : the index folder, made if missing.
    config : the defaults of ``WriteConfig`` where None.
    store : a backend with options of its own, such as the server of ``indexes.backends.qdrant``; by default
        the one that the config names.
    engine : what runs the encoder; by default this thread, one chunk after the other.
    split : cuts each text into passages, which are embedded one by one; a search returns the
        document of the best passage, with that passage's text.
    skipped : called after the last document; returns how many records the reader left out.
    progress : called after each chunk with the number of documents in it.
    resumed : called once with the number of documents that an earlier run had embedded, if any.

    Raises
    ------
    IndexExistsError : ``path`` holds an index and ``overwrite`` is false.
    UsageError : ``path`` is something else, the factory cannot be built, or the corpus, the model
        or the reading is another one than an unfinished run had.
    UnknownNameError : no such backend.
    MissingDependencyError : the backend's library is not installed.
    EmptyCorpusError : there was no document.
    DuplicateIdError : two documents share an id.
    RecordError : a document cannot be stored.
    VectorError : the encoder returned a wrong shape or dtype, NaN or infinity.
    StorageError : the disk is full or not writable, or another process writes this index.
    """
    config = config or WriteConfig()
    folder = Path(path)
    backend = store or get_backend(config.backend)
    if bool(config.passages) != (split is not None):
        raise UsageError("WriteConfig.passages and split go together; pass both or neither.")
    check_target(folder, config.overwrite)
    backend.check(encoder.dimension, config.factory)
    stream = iter(documents)
    if split is not None:
        stream = read_passages(stream, split)
    first = next(stream, None)
    if first is None:
        raise EmptyCorpusError(f"{config.source} holds no document; there is nothing to index.")
    stream = chain([first], stream)
    with open_workspace(folder, config.overwrite, restart=config.restart) as workspace:
        listeners = _Listeners(progress, resumed)
        staging = _stage(encoder, stream, workspace, config, listeners, engine or encode_in_turn)
        with storage_errors(folder):
            rows = StoredRows(
                files=staging.files(),
                dimension=encoder.dimension,
                vector_type=config.vector_type,
            )
            origin = Origin(
                fingerprint=encoder.fingerprint,
                corpus_name=config.corpus_name,
                skipped=skipped() if skipped is not None else 0,
                passages=config.passages,
            )
            return build_index(
                workspace, backend, rows, origin, name=config.backend, factory=config.factory
            )


@dataclass(frozen=True)
class _Listeners:
    """Who is told how far the work is; see ``write_corpus``."""

    progress: Progress | None
    resumed: Progress | None

    def done(self, documents: int) -> None:
        if self.progress is not None:
            self.progress(documents)

    def going_on(self, documents: int) -> None:
        if self.resumed is not None and documents:
            self.resumed(documents)


def read_chunks(items: Iterable[T], count: int, length: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield lists of at most ``count`` items and about 16 Mi characters."""
    chunk: list[T] = []
    characters = 0
    for item in items:
        chunk.append(item)
        characters += length(item)
        if len(chunk) >= count or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _stage(
    encoder: Encoder,
    stream: Iterator[Document],
    workspace: Workspace,
    config: WriteConfig,
    listeners: _Listeners,
    engine: Engine,
) -> Staging:
    """Encode every document that is not staged yet; return what is staged then."""
    refusals = partial(storage_errors, workspace.folder)  # not around what reads or encodes
    plan = {
        **encoder.fingerprint.settings,
        "corpus": config.corpus_name,
        "batch_documents": config.batch_documents,
        "vector_type": config.vector_type,
        **config.passages,
        **config.reading,
    }
    with refusals():
        staging = Staging(
            workspace.staging,
            plan,
            source=config.source,
            dimension=encoder.dimension,
            vector_type=config.vector_type,
        )
    for rows in staging.skip(stream):
        listeners.done(rows)
    listeners.going_on(staging.finished_rows)
    try:
        chunks = read_chunks(stream, config.batch_documents, _length)
        with _closed(engine(encoder, chunks)) as run:
            for chunk, encoded in run:
                vectors = check_encoded(encoded, chunk, encoder.dimension)
                with refusals():
                    staging.append(chunk, vectors)
                listeners.done(len(chunk))
        with refusals():
            staging.finish()
    except BaseException:
        staging.abandon()
        raise
    return staging


@contextmanager
def _closed(run: Iterator[T]) -> Iterator[Iterator[T]]:
    """End an engine with the loop over it, and not when its traceback is collected."""
    try:
        yield run
    finally:
        if isinstance(run, Generator):
            run.close()


def encode_in_turn(
    encoder: Encoder, chunks: Iterator[list[Document]]
) -> Iterator[tuple[Sequence[Document], Vectors]]:
    """Yield each chunk with its vectors, computed here, one chunk after the other."""
    for chunk in chunks:
        yield chunk, encoder.encode_documents([document.content for document in chunk])


def check_encoded(vectors: object, chunk: Sequence[Document], dimension: int) -> Vectors:
    """Return the chunk's vectors if they are finite float32 (N, D)."""
    shape = getattr(vectors, "shape", None)
    if not isinstance(vectors, np.ndarray) or shape != (len(chunk), dimension):
        raise VectorError(
            f"The encoder returned shape {shape} for {len(chunk)} documents from "
            f"{chunk[0].doc_id!r} on; ({len(chunk)}, {dimension}) was expected."
        )
    bad = find_bad_row(vectors)
    if bad is not None:
        raise VectorError(
            f"The encoder returned NaN or infinity for document {chunk[bad].doc_id!r}."
        )
    return check_vectors(vectors, dimension, source=f"Document {chunk[0].doc_id!r}")


def _length(document: Document) -> int:
    return len(document.text)
