"""Opens an index folder, refusing one that is not whole."""

from __future__ import annotations

from pathlib import Path

from indexes.backends.registry import get_backend
from indexes.index import StoredIndex
from indexes.storage.manifest import FileEntry, Manifest, read_manifest
from retrieval.errors import IndexCorruptError

__all__ = ["find_damage", "open_index", "verify_index"]


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
        _refuse(folder / entry.name, _find_fault(folder / entry.name, entry))
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
        _refuse(folder / entry.name, _find_size_fault(folder / entry.name, entry))
    return StoredIndex.open(folder, manifest, backend)


def find_damage(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Return, by name, what is wrong with each file that is not what the manifest lists.

    Reads every file. Opens none: an engine may never return from a damaged one.
    """
    found = {e.name: _find_fault(folder / e.name, e) for e in manifest.files.values()}
    return {name: fault for name, fault in found.items() if fault}


def _find_fault(path: Path, entry: FileEntry) -> str:
    """Return what is wrong with a file, as a clause; empty where nothing is."""
    fault = _find_size_fault(path, entry)
    if fault:
        return fault
    try:
        whole = FileEntry.of(path, entry.name) == entry
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "" if whole else "its checksum is not the one in the manifest"


def _find_size_fault(path: Path, entry: FileEntry) -> str:
    """The same as far as it shows without reading the file."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if found == entry.bytes:
        return ""
    return f"it has {found} bytes, the manifest states {entry.bytes}"


def _refuse(path: Path, fault: str) -> None:
    if fault:
        raise IndexCorruptError(
            f"{path} is damaged: {fault}. Index the corpus again with --overwrite."
        )
