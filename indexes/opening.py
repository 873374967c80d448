"""Opens an index folder, refusing one that is not whole."""

from __future__ import annotations

from pathlib import Path

from indexes.index import StoredIndex
from indexes.manifest import FileEntry, Manifest, read_manifest
from indexes.registry import get_backend
from retrieval.errors import IndexCorruptError

__all__ = ["open_index", "verify_index"]


def open_index(path: Path | str) -> StoredIndex:
    """Return the index in folder ``path``, ready to search.

    File sizes and counts are checked, checksums are not: see ``verify_index``.

    Raises
    ------
    SourceNotFoundError : there is no such folder, or it holds no index.
    IndexCorruptError : the build was interrupted, or a file is missing or damaged.
    UsageError : a newer millpond wrote the index.
    UnknownNameError : this millpond has no such backend.
    MissingDependencyError : the backend's library is not installed.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    try:
        return _open(folder, manifest)
    except IndexCorruptError:
        # A writer may have replaced the index since the manifest was read.
        newer = read_manifest(folder)
        if newer == manifest:
            raise
        return _open(folder, newer)


def verify_index(path: Path | str) -> Manifest:
    """Read every file of the index, compare its checksum, and return the manifest.

    Raises
    ------
    IndexCorruptError : a file is missing or is not what was written; and as ``open_index``.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for entry in manifest.files.values():  # before an engine sees a damaged file
        _check_size(folder / entry.name, entry.bytes)
        if FileEntry.of(folder / entry.name, entry.name) != entry:
            raise _damaged(folder / entry.name, "its checksum is not the one in the manifest")
    _open(folder, manifest)
    return manifest


def _open(folder: Path, manifest: Manifest) -> StoredIndex:
    backend = get_backend(manifest.backend)
    for role in ("documents/00000", "vectors/00000", *backend.files):
        if role not in manifest.files:
            raise IndexCorruptError(
                f"{folder} is damaged: its manifest lists no file for {role!r}. "
                "Index the corpus again with --overwrite."
            )
    for entry in manifest.files.values():
        _check_size(folder / entry.name, entry.bytes)
    return StoredIndex.open(folder, manifest, backend)


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error
    if found != expected:
        raise _damaged(path, f"it has {found} bytes, the manifest states {expected}")


def _damaged(path: Path, reason: str) -> IndexCorruptError:
    return IndexCorruptError(
        f"{path} is damaged: {reason}. Index the corpus again with --overwrite."
    )
