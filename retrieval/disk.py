"""Makes sure that what was written is on the disk before it is renamed into place."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync_path", "sync_tree"]


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
