"""What a vector store must offer to be listed in ``indexes.registry.BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from indexes.documents import DocumentStore
from indexes.manifest import Manifest
from indexes.shards import Shards
from retrieval import Fingerprint, Scalar, VectorIndex

__all__ = ["Backend", "BuildRequest", "BuildResult"]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What a backend builds from.

    Attributes
    ----------
    folder : where the backend writes the files that it declares.
    factory : the backend's own description of the index type.
    vectors, documents : all rows, in the same order.
    fingerprint : of the encoder that made the vectors; a store outside the folder keeps it.
    """

    folder: Path
    factory: str
    vectors: Shards
    documents: DocumentStore
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What the manifest records of a build: chosen settings and library versions."""

    settings: Mapping[str, Scalar] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of vector store.

    Attributes
    ----------
    files : the file names that ``build`` writes, by role; empty for a server.
    check : takes dimension and factory; raises UsageError for a factory that cannot be built,
        or MissingDependencyError, before anything costly is done.
    build : writes ``files``; raises UsageError when the corpus is too small for the factory.
    open : takes the index folder and its manifest.
    """

    files: Mapping[str, str]
    check: Callable[[int, str], None]
    build: Callable[[BuildRequest], BuildResult]
    open: Callable[[Path, Manifest], VectorIndex]
