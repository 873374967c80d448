"""Makes sure that what was written is on the disk before it is renamed into place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from retrieval.errors import StorageError

__all__ = ["FULL_DISK", "make_folder", "replace_file", "sync_path", "sync_tree", "write_synced"]

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file can grow no more: the disk, the quota, the file's own limit."""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are not there already.

    Raises
    ------
    StorageError : it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror or error}).") from error


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    StorageError : the disk is full or not writable; what was there before still is.
    """
    beside = path.with_name(f".{path.name}.writing")
    try:
        write_synced(beside, data)
        beside.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        beside.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until its bytes are on the disk; raises OSError."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_path(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk.

    Raises
    ------
    OSError : it cannot be opened, or the disk refuses.
    """
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything below it are on the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync_path(path)
