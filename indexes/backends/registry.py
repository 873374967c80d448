"""The vector stores by name."""

from __future__ import annotations

from indexes.backends.backend import Backend
from indexes.backends.faiss import build as faiss_build
from indexes.backends.faiss import search as faiss_index
from indexes.backends.qdrant import configured_backend
from indexes.storage.manifest import Manifest
from retrieval.errors import UnknownNameError

__all__ = ["BACKENDS", "backend_of", "get_backend", "list_backends"]

BACKENDS: dict[str, Backend] = {
    "faiss": Backend(
        files={"index": faiss_build.INDEX_NAME},
        check=faiss_build.check_factory,
        build=faiss_build.build,
        open=faiss_index.open_engine,
        keeps_deleted=True,
    ),
    "qdrant": configured_backend(),
}


def get_backend(name: str) -> Backend:
    """Return the backend of this name, or raise UnknownNameError."""
    if name not in BACKENDS:
        raise UnknownNameError("index backend", name, BACKENDS)
    return BACKENDS[name]


def backend_of(manifest: Manifest) -> Backend:
    """Return the backend of an index, with the options that it was built with."""
    backend = get_backend(manifest.backend)
    return backend if backend.like is None else backend.like(manifest)


def list_backends() -> tuple[str, ...]:
    """Return the names that ``IndexConfig.backend`` may have."""
    return tuple(BACKENDS)
