"""Output: files that appear whole, reports on an index."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.console import clean, format_seconds, message, warn
from retrieval.errors import StorageError, UsageError

if TYPE_CHECKING:
    from indexes import Change, Manifest

__all__ = [
    "read_version",
    "RECALL",
    "RECALL_QUERIES",
    "count_rows",
    "describe_blank",
    "describe_recall",
    "report_built",
    "report_change",
    "report_recall",
    "atomic_output",
    "check_output",
    "confirm_replacing",
    "is_special",
]


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


RECALL, RECALL_QUERIES = "recall@10", "recall_queries"
"""A test holds the first equal to ``indexes.build.RECALL``."""
GOOD_RECALL = 0.9
ADVICE = {
    "faiss": "a type that looks at more (HNSW64, IVF256,Flat for IVF256,PQ32), or Flat",
    "qdrant": "a denser graph (HNSW64,ef400), or Flat",
}


def count_rows(manifest: Manifest) -> str:
    """Return the number of documents or passages, with the noun."""
    noun = "passage" if manifest.passages else "document"
    return f"{manifest.documents:,} {noun}{'' if manifest.documents == 1 else 's'}"


def describe_recall(manifest: Manifest) -> str:
    """Return the measured recall of an approximate index, "" of an exact one."""
    recall = manifest.settings.get(RECALL)
    if not isinstance(recall, int | float):
        return ""
    queries = manifest.settings.get(RECALL_QUERIES)
    return f"{recall:.2f} against exact search ({queries} stored vectors as queries)"


def report_built(manifest: Manifest, folder: Path) -> None:
    """Report where a server keeps a new index, and its recall if it is approximate."""
    place = manifest.settings
    if place.get("mode") == "server":
        message(f"The collection {place['collection']!r} at {place['url']} holds the vectors.")
    blank = describe_blank(manifest)
    if blank:
        message(f"{blank}.")
    report_words(manifest)
    report_recall(manifest, folder)


def describe_arms(manifest: Manifest) -> str:
    """Return what an index is searched by, such as "dense, lexical (english)"."""
    language = manifest.lexical.get("language")
    return ", ".join(manifest.arms) + (f" ({language})" if manifest.lexical else "")


def report_words(manifest: Manifest) -> None:
    """Report the language that the words of an index are read in."""
    language = manifest.lexical.get("language")
    if language == "none":
        message("Words are compared as they are, without endings cut off (--language none).")
    elif language:
        message(f"Words are indexed as {language}; for another language type --language NAME.")


def describe_blank(manifest: Manifest) -> str:
    """Return how many documents hold no word, and what that means; "" if none do."""
    if not manifest.blank:
        return ""
    noun = "passage" if manifest.passages else "document"
    several = manifest.blank != 1
    return (
        f"{manifest.blank:,} {noun}{'s hold' if several else ' holds'} no letter, digit or "
        f"pictograph: kept, but not found by meaning"
    )


def report_recall(manifest: Manifest, folder: Path) -> None:
    """Report the recall of an approximate index, with a warning and advice if it is low."""
    found = describe_recall(manifest)
    if not found:
        return
    recall = manifest.settings[RECALL]
    assert isinstance(recall, int | float)
    if recall >= GOOD_RECALL:
        message(f"{RECALL} {found}")
        return
    advice = ADVICE.get(manifest.backend, "another type, or Flat")
    warn(
        f"{RECALL} {found}: {manifest.factory} misses {1 - recall:.0%} of the best documents. "
        f"Try {advice}: millpond reindex {shlex.quote(str(folder))} --factory TYPE"
    )


def report_change(change: Change, folder: Path, seconds: float, label: str = "") -> None:
    """Report in one line, which begins with ``label``, what a change did, and the recall now."""
    counts = {
        "added": change.added,
        "replaced": change.replaced,
        "relabelled": change.relabelled,
        "deleted": change.deleted,
        "kept": change.unchanged,
        "not found": change.missing,
    }
    done = [f"{name} {count:,}" for name, count in counts.items() if count] or ["changed nothing"]
    if change.compacted:
        done.append("compacted")
    text = ", ".join(done)
    text = label + text if label else text[0].upper() + text[1:]
    message(f"{text} in {format_seconds(seconds)}: {folder} holds {count_rows(change.manifest)}.")
    if change.postponed:
        warn(f"The deleted rows stay on disk for now, since compaction failed: {change.postponed}")
    blank = describe_blank(change.manifest)
    if blank and (change.added or change.replaced):
        message(f"{blank}.")
    if change.count:
        report_recall(change.manifest, folder)
