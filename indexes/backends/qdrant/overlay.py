"""What a reader of a Qdrant shard opens: a temporary folder of links and a few copies.

The engine replaces JSON files and opens all others for writing, and the index must stay as it is.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retrieval.errors import IndexCorruptError, StorageError

__all__ = ["explain_overlay", "later_interrupt", "make_overlay", "remove_overlay"]

COPIED_SUFFIXES = (".json", ".info")

FULL = (errno.ENOSPC, errno.EDQUOT)
RESEND_SECONDS = 0.05
"""How long a Ctrl-C that came inside a finaliser is held back after it."""


def make_overlay(shard: Path) -> Path:
    """Return a new temporary folder that shows the files of ``shard``.

    Files that this user may not write are copied, since the engine opens all files for writing.
    Everything is copied if the system allows no links.

    Raises
    ------
    OSError : a file cannot be read, or the temporary folder is full or not writable.
    """
    shard = shard.resolve()
    overlay = Path(tempfile.mkdtemp(prefix="millpond-qdrant-"))
    try:
        for folder, _, names in os.walk(shard, onerror=_refuse):
            place = overlay / Path(folder).relative_to(shard)
            place.mkdir(exist_ok=True)
            for name in names:
                _show(Path(folder) / name, place / name)
    except BaseException:
        remove_overlay(overlay)
        raise
    return overlay


def _refuse(error: OSError) -> None:
    raise error


def remove_overlay(overlay: Path) -> None:
    """Delete the overlay; the files that it shows stay."""
    shutil.rmtree(overlay, ignore_errors=True)


def _show(source: Path, place: Path) -> None:
    """Link a file, or copy it where the engine replaces it or this user may not write it."""
    if source.suffix not in COPIED_SUFFIXES and _is_writable(source):
        with suppress(OSError):
            place.symlink_to(source)
            return
    shutil.copyfile(source, place)


def _is_writable(path: Path) -> bool:
    return os.access(path, os.W_OK)


def explain_overlay(shard: Path, error: OSError) -> Exception:
    """Return the error of ours for one of ``make_overlay``."""
    file = Path(error.filename or tempfile.gettempdir())
    ours = file.is_relative_to(shard.resolve())
    if ours and isinstance(error, FileNotFoundError | NotADirectoryError):
        return IndexCorruptError(f"{file} is missing. Index the corpus again with --overwrite.")
    advice = "Name another place for temporary files in TMPDIR"
    if error.errno in FULL:
        advice = "Free some space there, or name another place in TMPDIR"
    elif ours:
        advice = "Change its permissions, or search a copy of the index"
    return StorageError(
        f"The Qdrant index {shard} cannot be opened: {file}: {error.strerror}. {advice}."
    )


@contextmanager
def later_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back until shortly afterwards, for use in a finaliser.

    There, Python would print a traceback for KeyboardInterrupt and then forget it.
    """
    previous = signal.getsignal(signal.SIGINT)
    main = threading.main_thread()
    if threading.current_thread() is not main or not callable(previous):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if came and main.ident is not None:
            again = (main.ident, signal.SIGINT)
            timer = threading.Timer(RESEND_SECONDS, signal.pthread_kill, again)
            timer.daemon = True
            with suppress(RuntimeError):  # the interpreter ends anyway
                timer.start()
