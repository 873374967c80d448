"""A folder of files that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from retrieval.disk import FULL_DISK, sync_path, sync_tree
from retrieval.errors import StorageError, UsageError

__all__ = ["check_new_folder", "new_folder", "storage_errors"]


def check_new_folder(folder: Path) -> None:
    """Return if ``folder`` can be made: it does not exist yet, or is empty.

    Raises
    ------
    UsageError : it is a file, or holds something, which is left alone.
    """
    if folder.is_dir():
        held = next(iter(sorted(folder.iterdir())), None)
        if held is not None:
            raise UsageError(
                f"{folder}: the folder is not empty (it holds {held.name!r}) and is left alone. "
                f"Name a new or an empty one."
            )
    elif folder.exists():
        raise UsageError(f"{folder}: this is a file; name a new or an empty folder.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside ``folder``, which takes its name when the block ends well.

    Raises
    ------
    UsageError : see ``check_new_folder``.
    StorageError : the disk is full or not writable; nothing is left behind.
    """
    folder = folder.expanduser().resolve()
    check_new_folder(folder)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.parent / f".{folder.name}.{os.getpid()}.writing"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            yield beside
            sync_tree(beside)
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
            sync_path(folder.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while files are written into a StorageError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in FULL_DISK
        problem = "the disk is full" if full else f"{getattr(error, 'strerror', None) or error}"
        raise StorageError(
            f"{folder}: the model cannot be written ({problem}). Nothing was left there: free "
            f"some space or name another place, and run the command again."
        ) from error
