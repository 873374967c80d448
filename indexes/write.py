"""Writes a corpus into an index folder: streaming, in bounded memory, resumable, all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np

from indexes.backend import Backend, BuildRequest, BuildResult
from indexes.documents import DocumentStore, check_unique_ids
from indexes.folder import Workspace, check_target, open_workspace, storage_errors
from indexes.manifest import (
    FileEntry,
    Manifest,
    base_libraries,
    millpond_version,
    now_utc,
)
from indexes.registry import get_backend
from indexes.shards import Shards, check_vectors, find_bad_row
from indexes.staging import DOCUMENTS_NAME, VECTORS_NAME, Staging
from retrieval import Document, Encoder, Progress, Scalar, Vectors
from retrieval.errors import EmptyCorpusError, UsageError, VectorError

__all__ = ["Engine", "WriteConfig", "encode_in_turn", "write_corpus"]

CHUNK_CHARACTERS = 16 * 2**20

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
    batch_documents : how many documents the encoder is handed at a time (fewer when they are
        longer than 16 Mi characters together).
    """

    backend: str = "faiss"
    factory: str = "Flat"
    overwrite: bool = False
    restart: bool = False
    corpus_name: str = ""
    reading: Mapping[str, Scalar] = field(default_factory=dict)
    batch_documents: int = 1024

    def __post_init__(self) -> None:
        """Raise UsageError for a value that is never accepted."""
        get_backend(self.backend)
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
    store : a backend with options of its own, such as the server of ``indexes.qdrant``; by default
        the one that the config names.
    engine : what runs the encoder; by default this thread, one chunk after the other.
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
    check_target(folder, config.overwrite)
    backend.check(encoder.dimension, config.factory)
    stream = iter(documents)
    first = next(stream, None)
    if first is None:
        raise EmptyCorpusError(f"{config.source} holds no document; there is nothing to index.")
    stream = chain([first], stream)
    with open_workspace(folder, config.overwrite, restart=config.restart) as workspace:
        listeners = _Listeners(progress, resumed)
        _stage(encoder, stream, workspace, config, listeners, engine or encode_in_turn)
        with storage_errors(folder):
            result, count = _build(backend, workspace, encoder, config)
            manifest = Manifest(
                backend=config.backend,
                factory=config.factory,
                metric="cosine",
                dimension=encoder.dimension,
                documents=count,
                skipped=skipped() if skipped is not None else 0,
                corpus_name=config.corpus_name,
                fingerprint=encoder.fingerprint,
                created=now_utc(),
                millpond=millpond_version(),
                libraries={**base_libraries(), **result.libraries},
                settings=result.settings,
                files=_list_files(workspace),
            )
            workspace.publish(json.dumps(manifest.to_json(), indent=2) + "\n")
    return manifest


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


def _read_chunks(documents: Iterable[Document], count: int) -> Iterator[list[Document]]:
    """Yield lists of at most ``count`` documents and about 16 Mi characters."""
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.text)
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
) -> None:
    """Encode every document that is not staged yet."""
    refusals = partial(storage_errors, workspace.folder)  # not around what reads or encodes
    plan = {
        **encoder.fingerprint.settings,
        "corpus": config.corpus_name,
        "batch_documents": config.batch_documents,
        **config.reading,
    }
    with refusals():
        staging = Staging(
            workspace.staging, plan, source=config.source, dimension=encoder.dimension
        )
    for rows in staging.skip(stream):
        listeners.done(rows)
    listeners.going_on(staging.finished_rows)
    try:
        chunks = _read_chunks(stream, config.batch_documents)
        for chunk, encoded in engine(encoder, chunks):
            vectors = _check_encoded(encoded, chunk, encoder.dimension)
            with refusals():
                staging.append(chunk, vectors)
            listeners.done(len(chunk))
        with refusals():
            staging.finish()
    except BaseException:
        staging.abandon()
        raise


def encode_in_turn(
    encoder: Encoder, chunks: Iterator[list[Document]]
) -> Iterator[tuple[Sequence[Document], Vectors]]:
    """Yield each chunk with its vectors, computed here, one chunk after the other."""
    for chunk in chunks:
        yield chunk, encoder.encode_documents([document.content for document in chunk])


def _check_encoded(vectors: object, chunk: Sequence[Document], dimension: int) -> Vectors:
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


def _build(
    backend: Backend, workspace: Workspace, encoder: Encoder, config: WriteConfig
) -> tuple[BuildResult, int]:
    """Build the backend's files from what was staged; return its result and N."""
    documents = DocumentStore(workspace.staging / DOCUMENTS_NAME)
    check_unique_ids(documents, source=config.source)
    vectors = Shards(workspace.staging / VECTORS_NAME, encoder.dimension)
    request = BuildRequest(
        workspace.staging, config.factory, vectors, documents, encoder.fingerprint
    )
    return backend.build(request), len(documents)


def _list_files(workspace: Workspace) -> dict[str, FileEntry]:
    """Return the manifest entry of every staged file, by role, under its published name."""
    entries = {}
    for path in sorted(workspace.staging.rglob("*")):
        name = path.relative_to(workspace.staging).as_posix()
        if path.is_file() and workspace.publishes(name):
            role = name.partition(".")[0]
            role = name if role in entries else role
            entries[role] = FileEntry.of(path, workspace.published_name(name))
    return entries
