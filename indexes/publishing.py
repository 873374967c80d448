"""The last step of a change: staged rows and deletions become the index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from indexes.backends.backend import Backend
from indexes.backends.registry import backend_of
from indexes.building import Origin, StoredRows, build_index
from indexes.folder import Workspace, storage_errors
from indexes.index import StoredIndex
from indexes.storage.manifest import Manifest
from indexes.storage.staging import Staging
from retrieval.errors import UsageError
from retrieval.passages import split_passage_id

__all__ = ["document_key", "document_of", "publish_change"]


def publish_change(
    workspace: Workspace,
    index: StoredIndex,
    store: Backend | None,
    dead: set[int],
    staging: Staging | None,
) -> Manifest:
    """Make the staged rows and the deletions the index; return the manifest that holds then.

    Raises
    ------
    UsageError : no document would be left.
    DuplicateIdError, OSError : as ``build_index``.
    """
    manifest = index.manifest
    staged = staging.finished_rows if staging is not None else 0
    if not dead and not staged:
        return manifest
    deleted = np.array(sorted(dead.union(index.rows.deleted.tolist())), dtype=np.int64)
    if len(deleted) == manifest.rows + staged:
        raise UsageError(
            f"No document would be left in {workspace.folder}; an index needs one. Delete the "
            f"folder instead, or index another corpus with --overwrite."
        )
    old = {role: entry for role, entry in manifest.files.items() if _is_shard(role)}
    shards = len(manifest.shards(workspace.folder, "vectors"))
    with storage_errors(workspace.folder):
        workspace.staging.mkdir(exist_ok=True)
        return build_index(
            workspace,
            store or backend_of(manifest),
            StoredRows(
                files={**old, **(staging.files(shards) if staging is not None else {})},
                dimension=manifest.dimension,
                vector_type=manifest.vector_type,
                deleted=deleted,
            ),
            Origin.of(manifest),
            name=manifest.backend,
            factory=manifest.factory,
            previous=manifest,
        )


def _is_shard(role: str) -> bool:
    return role.startswith(("documents/", "vectors/"))


def document_key(manifest: Manifest) -> Callable[[str], str] | None:
    """Return what turns a stored id into its document's, or None where they are the same."""
    return (lambda stored_id: split_passage_id(stored_id)[0]) if manifest.passages else None


def document_of(index: StoredIndex, stored_id: str) -> str:
    """Return the id of the document that a row belongs to."""
    return split_passage_id(stored_id)[0] if index.manifest.passages else stored_id
