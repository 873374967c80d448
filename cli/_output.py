"""Results: JSON lines on stdout, and files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["atomic_output", "check_output", "print_json", "print_line"]


def print_line(line: str = "") -> None:
    """Print one line of results; what stdout's encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def print_json(value: Any) -> None:
    """Print one JSON value as one line."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print_line(json.dumps(value, ensure_ascii=not utf8))


def check_output(path: Path) -> None:
    """Check what can be checked before the work that fills the file.

    Raises
    ------
    UsageError : the path is a folder, or its folder does not exist.
    StorageError : the folder cannot be written.
    """
    from retrieval.errors import StorageError, UsageError

    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; accepted is the name of a file to write.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(
            f"{path}: the folder {str(folder)!r} does not exist. Type: mkdir -p {folder}"
        )
    if not _is_special(path) and not os.access(folder, os.W_OK):
        raise StorageError(
            f"{path}: the folder {str(folder)!r} may not be written. Name another one."
        )


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` when the block ends well.

    Devices and named pipes are written directly.

    Raises
    ------
    StorageError : writing failed; what ``path`` held before is still there.
    """
    from retrieval.errors import StorageError

    try:
        if _is_special(path):
            yield path
            return
        target = path.resolve()
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            yield beside
            with beside.open("rb+") as written:
                os.fsync(written.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space or name "
            f"another place, and run the command again."
        ) from error


def _is_special(path: Path) -> bool:
    """Whether this exists and is neither file nor folder, as /dev/stdout is."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
