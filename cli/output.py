"""Files of results: checked before the work that fills them, and written whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from cli.console import clean
from retrieval.errors import StorageError, UsageError


def read_version() -> str:
    """Return the installed version, or "(not installed)" for a plain checkout."""
    try:
        return version("millpond")
    except PackageNotFoundError:
        return "(not installed)"


def check_output(path: Path, *inputs: str | Path, option: str = "--out") -> None:
    """Check that a file can be written, before the work that fills it.

    Parameters
    ----------
    inputs : files and folders that are read; none of them may be replaced, through a link neither.
    option : where the path was typed.

    Raises
    ------
    UsageError : the path is a folder, its folder does not exist, or it is an input.
    StorageError : the folder cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; expected the name of a file to write.")
    if any(_is_input(path, Path(source)) for source in inputs):
        raise UsageError(f"{path}: this is the input. Name another file with {option}.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(
            f"{path}: the folder {str(folder)!r} does not exist. Type: mkdir -p {folder}"
        )
    if not is_special(path) and not os.access(folder, os.W_OK):
        raise StorageError(f"{path}: the folder {str(folder)!r} is not writable. Name another one.")


def confirm_replacing(*paths: Path, overwrite: bool, may_ask: bool = True) -> None:
    """Ask before files are replaced; without a terminal to ask on, refuse.

    Parameters
    ----------
    overwrite : they may be replaced.
    may_ask : False where stdin is the input.

    Raises
    ------
    UsageError : one of them exists, and the user said no or cannot be asked.
    """
    held = next((path for path in paths if path.exists() and not is_special(path)), None)
    if held is None or overwrite:
        return
    if may_ask and sys.stdin.isatty() and sys.stderr.isatty():
        if typer.confirm(f"{clean(str(held))} exists. Replace it?", err=True):
            return
        raise UsageError(f"{held}: it was left as it is. Name another file with --out.")
    raise UsageError(
        f"{held}: the file exists. Add --overwrite to replace it, or name another with --out."
    )


def _is_input(path: Path, source: Path) -> bool:
    """Return whether a path is an existing file that may be read from this file or folder."""
    if is_special(path) or not path.exists() or not source.exists():
        return False
    if not source.is_dir():
        return path.samefile(source)
    # From a folder neither is read, so vectors may be written there again.
    return (
        path.suffix.lower() not in (".parquet", ".npy")
        and source.resolve() in path.resolve().parents
    )


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a path to write to; it replaces ``path`` if the block succeeds.

    Devices and named pipes are written directly.

    Raises
    ------
    StorageError : writing failed; what ``path`` held before is still there.
    """
    try:
        if is_special(path):
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


def is_special(path: Path) -> bool:
    """Return whether this is neither file nor folder, such as /dev/stdout."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
