"""What a vector store must offer to be listed in ``indexes.backends.registry.BACKENDS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from indexes.search.ranking import Candidates
from indexes.storage.documents import DocumentStore
from indexes.storage.manifest import Manifest
from indexes.storage.vectors import Shards
from retrieval import Fingerprint, Scalar
from retrieval.filters import Schema
from retrieval.protocols import Mask


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What a backend builds from.

    Attributes
    ----------
    folder : where the backend writes the files that it declares.
    factory : the backend's own description of the index type.
    vectors, documents : all rows, in the same order.
    fingerprint : of the encoder that made the vectors; a store outside the folder keeps it.
    schema : the types of the documents' fields.
    live : bool (N,), False for deleted and blank rows; None where there are none. A backend may
        leave those out or keep them, but rows keep their numbers.
    previous : returns the file of an index of the first rows, which may be extended instead of
        built anew, once its checksum was compared; raises IndexCorruptError for a damaged one.
    """

    folder: Path
    factory: str
    vectors: Shards
    documents: DocumentStore
    fingerprint: Fingerprint
    schema: Schema
    live: Mask | None = None
    previous: Callable[[], Path] | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What the manifest records of a build: chosen settings and library versions.

    Attributes
    ----------
    exact : whether a search compares every vector, so that there is no recall to measure.
    """

    settings: Mapping[str, Scalar] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    exact: bool = False


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """The index that a backend opens: its folder, its manifest and its rows.

    Attributes
    ----------
    live : as in ``BuildRequest``.
    """

    folder: Path
    manifest: Manifest
    vectors: Shards
    documents: DocumentStore
    live: Mask | None = None


@dataclass(frozen=True, slots=True)
class SearchEngine:
    """An opened store.

    Attributes
    ----------
    candidates : finds rows.
    exact : whether it compares every vector when it is not told to.
    float_scores : whether its scores are inner products, in float32, of the vectors as they are
        stored.
    threads : how many threads may ask at once; 1 where the engine shares its work out itself.
    start_thread : called in each of several threads before it asks.
    """

    candidates: Candidates
    exact: bool
    float_scores: bool = False
    threads: int = 1
    start_thread: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of vector store.

    Attributes
    ----------
    files : the file names that ``build`` writes, by role; empty for a server.
    check : takes dimension and factory; raises UsageError for a factory that cannot be built,
        or MissingDependencyError, before anything costly is done.
    build : writes ``files``; raises UsageError when the corpus is too small for the factory.
    open : returns what answers searches; raises IndexCorruptError if files, store and manifest
        disagree.
    keeps_deleted : whether ``build`` keeps deleted rows, so that its files outlive a deletion.
    like : returns this backend with the options that a manifest states, if it has any.
    """

    files: Mapping[str, str]
    check: Callable[[int, str], None]
    build: Callable[[BuildRequest], BuildResult]
    open: Callable[[OpenRequest], SearchEngine]
    keeps_deleted: bool = False
    like: Callable[[Manifest], Backend] | None = None
