"""Writes an index again without its deleted rows, or with another backend, embedding nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexes.backends.backend import Backend
from indexes.backends.registry import backend_of, get_backend
from indexes.building import Origin, StoredRows, build_index
from indexes.change import ChangeConfig
from indexes.folder import Workspace, open_workspace, storage_errors
from indexes.index import StoredIndex
from indexes.opening import open_index
from indexes.storage.manifest import BUILDING_NAME, FileEntry, Manifest, read_manifest
from indexes.storage.staging import SHARD_ROLES, Staging
from retrieval import Document, Vectors

__all__ = ["compact_if_needed", "compact_index", "reindex"]


def compact_if_needed(
    folder: Path, manifest: Manifest, config: ChangeConfig, *, store: Backend | None = None
) -> tuple[Manifest, bool]:
    """Compact the index if too many of its rows are deleted; return its manifest, and whether."""
    deleted = manifest.rows - manifest.documents
    if not deleted or deleted <= config.compact_share * manifest.rows:
        return manifest, False
    return compact_index(folder, store=store), True


def compact_index(path: Path | str, *, store: Backend | None = None) -> Manifest:
    """Write the index again without its deleted rows, and return its manifest.

    Vectors and documents are copied, nothing is embedded. Readers see the index as it was until
    the new one is whole.

    Raises
    ------
    SourceNotFoundError, IndexCorruptError, StorageError : as ``open_index`` and ``write_corpus``.
    """
    folder = Path(path)
    read_manifest(folder)  # a folder without an index is not touched
    with open_workspace(folder, True, restart=True) as workspace:
        index = open_index(folder)
        manifest = index.manifest
        if manifest.rows == manifest.documents:
            return manifest
        with storage_errors(folder):
            staging = Staging(
                workspace.staging,
                {"compaction": manifest.created},
                source=str(folder),
                dimension=manifest.dimension,
                vector_type=manifest.vector_type,
            )
            for documents, vectors in _live_rows(index):
                staging.append(documents, vectors)
            staging.finish()
            rows = StoredRows(
                files=staging.files(),
                dimension=manifest.dimension,
                vector_type=manifest.vector_type,
            )
            backend = store or backend_of(manifest)
            return _rebuild(workspace, manifest, rows, backend, manifest.factory)


def reindex(
    path: Path | str,
    *,
    out: Path | str | None = None,
    backend: str | None = None,
    factory: str | None = None,
    overwrite: bool = False,
    store: Backend | None = None,
) -> Manifest:
    """Build another index of the same vectors and return its manifest; nothing is embedded.

    Parameters
    ----------
    path : an index folder.
    out : the new folder, which shares the shards on disk where the file system allows; by default
        the index is replaced in its own folder, in one step.
    backend, factory : as in ``WriteConfig``; by default those of the index, and where the backend
        changes, "Flat".
    store : a backend with options of its own, of the kind that ``backend`` names.

    Raises
    ------
    IndexExistsError : ``out`` holds an index and ``overwrite`` is false.
    UsageError : the factory cannot be built.
    SourceNotFoundError, IndexCorruptError, StorageError : as ``open_index`` and ``write_corpus``.
    """
    folder = Path(path)
    index = open_index(folder)
    manifest = index.manifest
    name = backend or manifest.backend
    same = name == manifest.backend
    kind = factory or (manifest.factory if same else "Flat")
    chosen = store or (backend_of(manifest) if same else get_backend(name))
    chosen.check(manifest.dimension, kind)
    target = folder if out is None else Path(out)
    in_place = target.resolve() == folder.resolve()
    with open_workspace(target, overwrite or in_place, restart=True) as workspace:
        if in_place:
            manifest = open_index(folder).manifest  # as it is now that it is locked
        with storage_errors(target):
            workspace.staging.mkdir(exist_ok=True)
            files = {
                role: entry
                for role, entry in manifest.files.items()
                if role.startswith(tuple(f"{shard}/" for shard in SHARD_ROLES))
            }
            if not in_place:
                files = {
                    role: _share(folder, workspace, role, entry) for role, entry in files.items()
                }
            rows = StoredRows(
                files=files,
                dimension=manifest.dimension,
                vector_type=manifest.vector_type,
                deleted=index.rows.deleted,
            )
            return _rebuild(workspace, replace(manifest, backend=name), rows, chosen, kind)


def _rebuild(
    workspace: Workspace,
    manifest: Manifest,
    rows: StoredRows,
    backend: Backend,
    factory: str,
) -> Manifest:
    origin = Origin.of(manifest)
    return build_index(workspace, backend, rows, origin, name=manifest.backend, factory=factory)


def _live_rows(index: StoredIndex) -> Iterator[tuple[list[Document], Vectors]]:
    """Yield documents and vectors of the rows that are not deleted, a batch at a time."""
    mask, start = index.rows.everything.mask, 0
    for batch in index.documents.iterate():
        rows = np.arange(start, start + len(batch), dtype=np.int64)
        start += len(batch)
        kept = rows if mask is None else rows[mask[rows]]
        if len(kept):
            yield [batch[row - rows[0]] for row in kept.tolist()], index.stored.rows(kept)


def _share(folder: Path, workspace: Workspace, role: str, entry: FileEntry) -> FileEntry:
    """Show a shard in another index: by a link where that works, else by a copy."""
    source = folder / entry.name
    name = f"{role}{source.suffix}"
    target = workspace.staging / name
    target.parent.mkdir(exist_ok=True)
    with suppress(OSError):
        os.link(source, target)
    if not target.exists():
        shutil.copyfile(source, target)
    return replace(entry, name=f"{BUILDING_NAME}/{name}")
