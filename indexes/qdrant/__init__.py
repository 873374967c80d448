"""The Qdrant backend: its engine in a folder, a server or cloud, or this process' memory."""

from indexes.qdrant.options import QdrantOptions
from indexes.qdrant.store import configured_backend

__all__ = ["QdrantOptions", "configured_backend"]
