"""The Qdrant backend: its engine in a folder, a server or cloud, or this process' memory."""

from indexes.backends.qdrant.options import QdrantOptions
from indexes.backends.qdrant.store import configured_backend

__all__ = ["QdrantOptions", "configured_backend"]
