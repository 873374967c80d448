"""The vector stores by name."""

from __future__ import annotations

from indexes.backends import faiss
from indexes.backends.backend import Backend
from indexes.backends.qdrant import configured_backend
from indexes.storage.manifest import Manifest
from retrieval.errors import Registry

BACKENDS = Registry[Backend](
    "index backend",
    {
        "faiss": Backend(
            files={"index": faiss.INDEX_NAME},
            check=faiss.check_factory,
            build=faiss.build,
            open=faiss.open_engine,
            keeps_deleted=True,
        ),
        "qdrant": configured_backend(),
    },
)


def backend_of(manifest: Manifest) -> Backend:
    """Return the backend of an index, with the options that it was built with."""
    backend = BACKENDS[manifest.backend]
    return backend if backend.like is None else backend.like(manifest)


def list_backends() -> tuple[str, ...]:
    """Return the names that ``IndexConfig.backend`` may have."""
    return tuple(BACKENDS)
