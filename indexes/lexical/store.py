"""The files of a lexical arm, which are those of a tantivy index, written and opened.

Found with tantivy 0.27, and relied on here:

- Segment files are never changed once they are written, so a later arm may share them.
- With one thread, the same rows give the same scores in whatever segments they lie: counts are
  those of the whole index.
- Opening writes a lock file beside the index. So a reader opens a temporary folder of links, which
  can go as soon as everything is mapped: the index folder stays as it is, and may be read-only.
- Damaged files make it panic, which arrives here as a ``PanicException``, no ``Exception``.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.analysis import Analyser
from retrieval.disk import FULL_DISK
from retrieval.errors import IndexCorruptError, StorageError

__all__ = [
    "K1",
    "ROW",
    "WORDS",
    "B",
    "describe_damage",
    "open_searcher",
    "reading_arm",
    "write_rows",
]

WORDS = "words"
ROW = "row"
K1, B = 1.2, 0.75
"""What tantivy computes BM25 with; it takes no others."""
REMOVALS = 20
HEAP_BYTES = 30 * 2**20
"""Of the one writing thread; a segment is written out when it is full."""
LOCKS = (".tantivy-writer.lock", ".tantivy-meta.lock")


def write_rows(folder: Path, rows: Iterable[tuple[int, str]], analyser: Analyser) -> int:
    """Add rows, numbers and texts, to the arm in ``folder``, made if missing; return their count.

    Raises
    ------
    StorageError : the engine refuses.
    OSError : the disk is full.
    """
    import tantivy

    folder.mkdir(parents=True, exist_ok=True)
    before = count = 0
    try:
        index = tantivy.Index(_schema(), str(folder))
        before = index.searcher().num_docs
        writer = index.writer(HEAP_BYTES, 1)
        for row, text in rows:
            document = tantivy.Document()
            document.add_unsigned(ROW, row)
            document.add_text(WORDS, " ".join(analyser.tokens(text)))
            writer.add_document(document)
            count += 1
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        stored = index.searcher().num_docs
    except ValueError as error:
        _refuse_full_disk(folder, error)
        raise StorageError(f"The lexical arm {folder} cannot be written: {error}") from error
    for name in LOCKS:
        (folder / name).unlink(missing_ok=True)
    if stored != before + count:
        raise StorageError(
            f"{folder} holds {stored} rows after {count} were added to {before}. Free some space "
            "and type the command again."
        )
    return count


def open_searcher(files: Sequence[Path]) -> tuple[Any, Any]:
    """Return tantivy's schema and searcher of the arm that consists of these files.

    Raises
    ------
    IndexCorruptError : they are not what was written.
    StorageError : there is no room for temporary files.
    """
    import tantivy

    try:
        overlay = Path(tempfile.mkdtemp(prefix="millpond-lexical-"))
    except OSError as error:
        raise StorageError(
            f"{error.filename}: {error.strerror}. Name another place for temporary files in TMPDIR."
        ) from error
    try:
        for file in files:
            (overlay / file.name).symlink_to(file.resolve())
        with reading_arm(files[0].parent):
            index = tantivy.Index.open(str(overlay))
            return index.schema, index.searcher()
    finally:
        for _ in range(REMOVALS):  # the engine's own thread may be making or removing a lock in it
            shutil.rmtree(overlay, ignore_errors=True)
            if not overlay.exists():
                break
            time.sleep(0.01)


def _refuse_full_disk(folder: Path, error: ValueError) -> None:
    """Raise OSError if that is what the engine, whose threads say little, has met."""
    told = any(f"(os error {number})" in str(error) for number in FULL_DISK)
    if told or shutil.disk_usage(folder).free < HEAP_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


@contextmanager
def reading_arm(folder: Path) -> Iterator[None]:
    """Turn what damaged files make tantivy raise into IndexCorruptError."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        raise IndexCorruptError(
            f"{describe_damage(folder, error)}. Make it again with: "
            f"millpond reindex {shlex.quote(str(folder.parent))} --arms dense,lexical"
        ) from error


def describe_damage(folder: Path, error: BaseException) -> str:
    """Return what a damaged arm made the engine say, as a clause."""
    return f"The lexical arm {folder} is damaged: {' '.join(str(error).split())}"


def _schema() -> Any:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field(ROW, indexed=True, fast=True)
    builder.add_text_field(WORDS, tokenizer_name="whitespace", index_option="freq")
    return builder.build()
