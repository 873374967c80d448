"""What a Qdrant server says about the collection of an index folder."""

from __future__ import annotations

from dataclasses import dataclass

from indexes.manifest import Manifest
from indexes.qdrant.connection import Connection
from indexes.qdrant.options import SERVER, QdrantOptions
from indexes.qdrant.store import STORED_COLLECTION
from retrieval.errors import IndexCorruptError

__all__ = ["CollectionState", "read_collection_state"]


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection at one moment.

    Attributes
    ----------
    url, name : where it is; the name is that of the collection and not of its alias.
    points : counted exactly.
    status : "green"; "yellow" while the server indexes; "grey" until it begins to, after it was
        started again; "red" where it cannot.
    problem : what the server says about a "red" one; else empty.
    indexed_vectors : how many the graph holds; None where the server does not tell.
    """

    url: str
    name: str
    points: int
    status: str
    problem: str = ""
    indexed_vectors: int | None = None


def read_collection_state(manifest: Manifest) -> CollectionState | None:
    """Return the state of the collection that holds this index; None if no server holds it.

    Raises
    ------
    StorageError : the server is down, refuses the key, or has no such collection.
    IndexCorruptError : the manifest does not tell where the vectors are.
    """
    if manifest.backend != "qdrant":
        return None
    options = QdrantOptions.from_manifest(manifest)
    if options.mode != SERVER:
        return None
    name = manifest.settings.get(STORED_COLLECTION)
    if not isinstance(name, str):
        raise IndexCorruptError(
            f"The manifest names no collection at {options.url}. Index the corpus again with "
            "--overwrite."
        )
    with Connection(options) as connection:
        info = connection.run(lambda client: client.get_collection(name), attempts=2)
        points = connection.run(lambda client: client.count(name, exact=True).count)
    return CollectionState(
        url=options.url,
        name=name,
        points=points,
        status=str(getattr(info.status, "value", info.status)),
        problem=str(getattr(info.optimizer_status, "error", None) or ""),
        indexed_vectors=getattr(info, "indexed_vectors_count", None),
    )
