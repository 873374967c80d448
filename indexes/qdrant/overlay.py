"""A private view of the engine's files, so that searching an index never changes it.

The engine replaces JSON files whenever it opens a shard, and a later version may write them in
another way; the checksums in the manifest would then be wrong. Each reader therefore opens a
folder of its own: these JSON files are copies, all else are links to what was published. Whole
folders are linked where they can be: the engine overlooks linked files when it lists a folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["make_overlay", "remove_overlay"]

SEGMENTS = "segments"
COPIED_SUFFIXES = (".json", ".info")


def make_overlay(shard: Path) -> Path:
    """Return a new temporary folder that shows the files of ``shard``.

    What this user may not write is copied: the engine opens all its files for writing. So is
    everything where the system allows no links.

    Raises
    ------
    OSError : a file cannot be read, or the temporary folder is full or not writable.
    """
    shard = shard.resolve()
    overlay = Path(tempfile.mkdtemp(prefix="millpond-qdrant-"))
    try:
        _show(shard, overlay)
        for segment in (shard / SEGMENTS).iterdir():
            (overlay / SEGMENTS / segment.name).mkdir(parents=True)
            _show(segment, overlay / SEGMENTS / segment.name)
    except BaseException:
        remove_overlay(overlay)
        raise
    return overlay


def remove_overlay(overlay: Path) -> None:
    """Delete the view; what it shows stays."""
    shutil.rmtree(overlay, ignore_errors=True)


def _show(folder: Path, target: Path) -> None:
    """Link or copy each entry of ``folder`` into ``target``, but for the segments' folder."""
    for source in folder.iterdir():
        if source.name == SEGMENTS:
            continue
        place = target / source.name
        if source.suffix not in COPIED_SUFFIXES and _link(source, place):
            continue
        if source.is_dir():
            shutil.copytree(source, place, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, place)


def _link(source: Path, place: Path) -> bool:
    inside = list(source.rglob("*")) if source.is_dir() else [source]
    if not inside or not all(_is_writable(path) for path in inside):
        return False
    with suppress(OSError):
        place.symlink_to(source, target_is_directory=source.is_dir())
        return True
    return False


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK)
