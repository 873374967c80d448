"""Files that are on the disk before they are renamed into place."""

from __future__ import annotations

import errno
import io
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np

from retrieval.errors import StorageError
from retrieval.protocols import Vectors

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a file that can grow no further: full disk, quota, the limit of the file itself."""


def make_folder(folder: Path) -> None:
    """Make a folder and its parents unless they exist.

    Raises
    ------
    StorageError : the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror or error}).") from error


def link_or_copy(source: Path, target: Path) -> None:
    """Show a file that is never changed in another place: by a link where that works, else a copy.

    Raises
    ------
    OSError : it cannot be copied either.
    """
    with suppress(OSError):
        os.link(source, target)
    if not target.exists():
        shutil.copyfile(source, target)


def replace_file(path: Path, data: bytes) -> None:
    """Write a whole file or nothing.

    Raises
    ------
    StorageError : the disk is full or not writable; the old file is still there.
    """
    beside = path.with_name(f".{path.name}.writing")
    try:
        write_synced(beside, data)
        beside.replace(path)
    except OSError as error:
        advice = (
            "Free some space, and run the command again."
            if error.errno in FULL_DISK
            else "Check the permissions, or name another place."
        )
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}). {advice}"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def keep_vectors(path: Path, vectors: Vectors) -> None:
    """Write an .npy file, whole or not at all.

    Raises
    ------
    StorageError : as ``replace_file``.
    """
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    replace_file(path, buffer.getvalue())


def read_kept_vectors(path: Path, shape: tuple[int, int]) -> Vectors | None:
    """Return what ``keep_vectors`` wrote; None if it is not there, damaged, or of another shape."""
    try:
        vectors: Vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None


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
    OSError : the path cannot be opened, or the disk refuses.
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
