"""From documents to staged rows: encoded, checked, stored. And how a new index is made of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from indexes.backends.backend import Backend
from indexes.backends.registry import BACKENDS
from indexes.build import build_index
from indexes.lexical.build import ARMS, check_arms, plan_arm
from indexes.storage.manifest import Manifest
from indexes.storage.staging import Staging
from indexes.storage.vectors import VECTOR_TYPES, find_bad_row
from indexes.transaction import Transaction, begin, check_target, storage_errors
from retrieval import Document, Encoder, Progress, Scalar, Vectors, read_corpus
from retrieval.corpus.records import read_documents
from retrieval.errors import EmptyCorpusError, UnknownNameError, UsageError, VectorError, check_type
from retrieval.passages import Splitter, read_passages
from retrieval.protocols import no_progress

CHUNK_CHARACTERS = 16 * 2**20

Source: TypeAlias = Iterable[Document] | Iterable[Mapping[str, Any]] | str | Path
"""Documents, or dicts with ``id``, ``text`` and ``title``, read once in bounded memory; or what
``read_corpus`` reads, by name."""

Encoded: TypeAlias = Iterator[tuple[Sequence[Document], Vectors]]
"""Chunks of documents, in order, each with its vectors float32 (N, D)."""

Engine: TypeAlias = Callable[[Encoder, Iterator[list[Document]]], Encoded]
"""Takes an encoder and chunks of documents; yields every chunk, in order, with its vectors."""


@dataclass(frozen=True)
class IndexConfig:
    """How an index is created or changed.

    Attributes
    ----------
    backend : one of ``list_backends()``; like the three that follow, for a new index only.
    factory : the backend's description of the index type; for faiss a factory string.
    vector_type : what the numbers of a vector are stored as: "float32", or "float16" for half
        the size and three digits.
    passages : how documents are cut, as the manifest keeps it; empty if they stay whole.
    arms : what the index is searched by, for a new index only: "dense" (vectors), which every
        index has, and "lexical" (words, by BM25).
    language : of the lexical arm, for a new index only: one of
        ``retrieval.analysis.list_languages()``, "none" for code and identifiers; by default the
        one that most of the first 1,000 documents are in.
    overwrite : replace an index that is already there.
    restart : drop what an unfinished run has embedded, instead of going on from it.
    corpus_name : kept in the manifest and used in messages.
    reading : how the corpus is read ("limit", "skip_bad"); a run that goes on needs the same.
    batch_documents : how many documents the encoder is handed at a time (fewer when they are
        longer than 16 Mi characters together).
    compact_share : after a change, the index is compacted when more than this share of its rows
        is deleted, 0 to 1.
    """

    backend: str = "faiss"
    factory: str = "Flat"
    vector_type: str = "float32"
    passages: Mapping[str, int] = field(default_factory=dict)
    arms: Sequence[str] = ARMS
    language: str | None = None
    overwrite: bool = False
    restart: bool = False
    corpus_name: str = ""
    reading: Mapping[str, Scalar] = field(default_factory=dict)
    batch_documents: int = 1024
    compact_share: float = 0.25

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no index can have."""
        BACKENDS.check(self.backend)
        if self.vector_type not in VECTOR_TYPES:
            raise UnknownNameError("vector type", self.vector_type, VECTOR_TYPES)
        check_arms(self.arms, self.language)
        if self.batch_documents < 1:
            raise UsageError(f"batch_documents is {self.batch_documents}; it must be 1 or more.")
        if not 0 <= self.compact_share <= 1:
            raise UsageError(f"compact_share is {self.compact_share}; expected 0 to 1.")

    @property
    def source(self) -> str:
        """How messages name the corpus."""
        return self.corpus_name or "corpus"


def read_source(
    corpus: Source, config: IndexConfig | None, made: Manifest | None = None
) -> tuple[Iterable[Document], IndexConfig]:
    """Return the documents, and the config with the name of a source that is given by name.

    A source that is given by name is read as those of the index that ``made`` describes.
    """
    chosen = IndexConfig() if config is None else config
    check_type("config", chosen, IndexConfig, "an IndexConfig")
    if not isinstance(corpus, str | Path):
        if hasattr(corpus, "layout"):  # a Corpus, or what counts its documents
            return cast("Iterable[Document]", corpus), chosen
        return read_documents(chosen.source, corpus), chosen
    if made is None:
        documents = read_corpus(corpus)
    else:
        documents = read_corpus(corpus, types=made.schema.type_names, earlier=made.layout or {})
    return documents, replace(chosen, corpus_name=chosen.corpus_name or documents.name)


def create_index(
    path: Path,
    encoder: Encoder,
    documents: Iterable[Document],
    config: IndexConfig,
    *,
    store: Backend | None = None,
    engine: Engine | None = None,
    split: Splitter | None = None,
    skipped: Callable[[], int] = lambda: 0,
    progress: Progress = no_progress,
    resumed: Progress = no_progress,
) -> Manifest:
    """Encode ``documents``, write the index folder, return its manifest; see ``Index.create``."""
    backend = store or BACKENDS[config.backend]
    if bool(config.passages) != (split is not None):
        raise UsageError("IndexConfig.passages and split go together; pass both or neither.")
    check_target(path, config.overwrite)
    backend.check(encoder.dimension, config.factory)
    stream = iter(documents) if split is None else read_passages(documents, split)
    first = next(stream, None)
    if first is None:
        raise EmptyCorpusError(f"{config.source} holds no document; there is nothing to index.")
    with begin(path, overwrite=config.overwrite, restart=config.restart) as change:
        staging = change.stage(
            {**plan_of(encoder, config), "vector_type": config.vector_type, **config.passages},
            source=config.source,
            dimension=encoder.dimension,
            vector_type=config.vector_type,
        )
        stage_rows(
            change,
            staging,
            chain([first], stream),
            partial(_embed, encoder, engine or encode_in_turn),
            config,
            progress=progress,
            resumed=resumed,
        )
        draft = Manifest(
            backend=config.backend,
            factory=config.factory,
            metric=_metric(encoder),
            dimension=encoder.dimension,
            documents=staging.finished_rows,
            rows=staging.finished_rows,
            fingerprint=encoder.fingerprint,
            files=staging.files(),
            corpus_name=config.corpus_name,
            skipped=skipped(),
            vector_type=config.vector_type,
            passages=config.passages,
            lexical=plan_arm(config.arms, config.language),
            layout=getattr(documents, "layout", None) or None,
            cut=getattr(documents, "cut", None) or None,
        )
        return build_index(change, backend, draft)


def plan_of(encoder: Encoder, config: IndexConfig) -> dict[str, Scalar]:
    """Return what decides the vectors of a run; only a run with the same plan can continue it."""
    return {
        **encoder.fingerprint.settings,
        "corpus": config.corpus_name,
        "batch_documents": config.batch_documents,
        **config.reading,
    }


def stage_rows(
    change: Transaction,
    staging: Staging,
    documents: Iterator[Document],
    encode: Callable[[Iterator[list[Document]]], Encoded],
    config: IndexConfig,
    *,
    progress: Progress,
    resumed: Progress,
) -> None:
    """Store every row that is not staged yet, with the vector that ``encode`` gives it."""
    for rows in staging.skip(documents):
        progress(rows)
    if staging.finished_rows:
        resumed(staging.finished_rows)
    refusals = partial(storage_errors, change.folder)  # not around what reads or encodes
    for chunk, vectors in encode(_chunks(documents, config.batch_documents)):
        with refusals():
            staging.append(chunk, vectors)
        progress(len(chunk))
    with refusals():
        staging.finish()


def _chunks(documents: Iterator[Document], count: int) -> Iterator[list[Document]]:
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


def encode_in_turn(encoder: Encoder, chunks: Iterator[list[Document]]) -> Encoded:
    """Yield each chunk with its vectors, computed here, one chunk after the other."""
    for chunk in chunks:
        yield chunk, encoder.encode_documents([document.content for document in chunk])


def _embed(encoder: Encoder, engine: Engine, chunks: Iterator[list[Document]]) -> Encoded:
    run = engine(encoder, chunks)
    try:
        for chunk, vectors in run:
            yield chunk, check_encoded(vectors, chunk, encoder.dimension)
    finally:  # an engine ends with the loop over it, not when its traceback is collected
        if isinstance(run, Generator):
            run.close()


def check_encoded(vectors: object, chunk: Sequence[Document], dimension: int) -> Vectors:
    """Return the vectors of these documents if they are finite float32 (N, D).

    Raises
    ------
    VectorError : otherwise; names the document.
    """
    shape = getattr(vectors, "shape", None)
    if not isinstance(vectors, np.ndarray) or shape != (len(chunk), dimension):
        raise VectorError(
            f"The encoder returned shape {shape} for {len(chunk)} documents from "
            f"{chunk[0].doc_id!r} on; expected ({len(chunk)}, {dimension})."
        )
    if vectors.dtype != np.float32:
        raise VectorError(
            f"The encoder returned {vectors.dtype} for document {chunk[0].doc_id!r}; expected "
            "float32."
        )
    bad = find_bad_row(vectors)
    if bad is not None:
        raise VectorError(
            f"The encoder returned NaN or infinity for document {chunk[bad].doc_id!r}."
        )
    return vectors


def _metric(encoder: Encoder) -> str:
    """Return "cosine", the inner product of unit vectors, or "inner_product" of other vectors."""
    normalizes = encoder.fingerprint.settings.get("normalize") is not False
    return "cosine" if normalizes else "inner_product"
