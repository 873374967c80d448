"""Makes the lexical arm of an index from its stored documents, or goes on from an earlier one.

Found with tantivy 0.27, and relied on here:

- Segment files are never changed once they are written, so a later arm may share them.
- With one thread, the same rows give the same scores in whatever segments they lie: counts are
  those of the whole index.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from indexes.lexical.arm import ANALYSER, LANGUAGE, ROW, WORDS
from indexes.storage.documents import DocumentStore
from indexes.storage.files import FileEntry, find_fault
from indexes.storage.manifest import LEXICAL_NAME, Manifest
from retrieval import Scalar
from retrieval.analysis import ANALYSER_VERSION, Analyser, check_language, detect_language
from retrieval.disk import FULL_DISK, link_or_copy
from retrieval.errors import StorageError, UnknownNameError, UsageError
from retrieval.protocols import Mask

ARMS = ("dense", LEXICAL_NAME)
REPLACED = ".json"
"""The ending of the files that tantivy replaces; others are written once, and shared by links."""
READ_ROWS = 1024
HEAP_BYTES = 30 * 2**20
"""Of the one writing thread; a segment is written out when it is full."""
LOCKS = (".tantivy-writer.lock", ".tantivy-meta.lock")


def check_arms(arms: Sequence[str] | None, language: str | None) -> None:
    """Raise UsageError for arms or a language that no index can have; None stands for a default.

    Raises
    ------
    UnknownNameError : there is no such arm or language.
    UsageError : the dense arm is missing, or a language is named without the lexical arm.
    """
    if language is not None:
        check_language(language)
    if arms is None:
        return
    for name in arms:
        if name not in ARMS:
            raise UnknownNameError("arm", name, ARMS)
    if "dense" not in arms:
        raise UsageError(
            f"The arms are {', '.join(arms) or 'none'}; every index has vectors. Name dense, or "
            f"dense,lexical."
        )
    if language is not None and LEXICAL_NAME not in arms:
        raise UsageError(
            f"The language {language!r} is one of the lexical arm, and the arms are "
            f"{', '.join(arms)}. Name dense,lexical, or leave the language out."
        )


def plan_arm(
    arms: Sequence[str], language: str | None, held: Mapping[str, Scalar] | None = None
) -> dict[str, Scalar]:
    """Return what a draft states of the lexical arm: {} for none; no language: to be detected.

    ``held`` is what the manifest of the index states so far.
    """
    if LEXICAL_NAME not in arms:
        return {}
    return {LANGUAGE: language or (held or {}).get(LANGUAGE), ANALYSER: ANALYSER_VERSION}


def build_arm(
    staging: Path,
    planned: Mapping[str, Scalar],
    documents: DocumentStore,
    live: Mask | None,
    source: tuple[Path, Manifest] | None = None,
) -> tuple[dict[str, Scalar], dict[str, FileEntry]]:
    """Write the arm of these documents to ``staging``.

    Returns
    -------
    What the manifest states of the arm, and the published files that serve it as they are; those
    hold deleted rows, too.

    Parameters
    ----------
    planned : see ``plan_arm``; an index without such an arm states nothing, and has no files.
    live : bool (N,), False for rows that are left out; None where all are live.
    source : folder and manifest of an index whose rows are the first of these, with the same
        numbers; its arm is gone on from, if it is of the same kind and undamaged.

    Raises
    ------
    StorageError, OSError : the disk refuses.
    """
    if not planned:
        return {}, {}
    folder = staging / LEXICAL_NAME
    shutil.rmtree(folder, ignore_errors=True)
    language = planned[LANGUAGE]
    if language is None:
        contents = chain.from_iterable(documents.iterate())
        language = detect_language(document.content for document in contents)
    stated: dict[str, Scalar] = {LANGUAGE: language, ANALYSER: ANALYSER_VERSION}
    start = 0
    if source is not None and source[1].lexical == stated and _is_whole(*source):
        place, manifest = source
        start = manifest.rows
        if start == len(documents) and place == staging.parent:
            return stated, manifest.lexical_files
        start *= _share(place, manifest, folder)
    if start < len(documents):
        write_rows(folder, _contents(documents, start, live), Analyser(str(language)))
    return stated, {}


def arm_libraries(stated: Mapping[str, Scalar]) -> dict[str, str]:
    """Return the versions of the libraries that an arm depends on; none where there is no arm."""
    names = ("tantivy", "PyStemmer") if stated else ()
    return {name: metadata.version(name) for name in names}


def _is_whole(place: Path, manifest: Manifest) -> bool:
    entries = manifest.lexical_files.values()
    faults = (find_fault(place, entry, checksum=True) for entry in entries)
    return bool(entries) and not any(faults)


def _contents(documents: DocumentStore, start: int, live: Mask | None) -> Iterator[tuple[int, str]]:
    """Yield number and content of every live row from ``start`` on."""
    for first in range(start, len(documents), READ_ROWS):
        rows = np.arange(first, min(first + READ_ROWS, len(documents)), dtype=np.int64)
        if live is not None:
            rows = rows[live[rows]]
        for row, document in documents.documents(rows).items():
            yield row, document.content


def _share(place: Path, manifest: Manifest, folder: Path) -> bool:
    """Show the arm of another index in ``folder``: by links where that works, else by copies.

    False, and nothing there, if a writer has replaced it meanwhile.
    """
    folder.mkdir(parents=True)
    try:
        for entry in manifest.lexical_files.values():
            found = place / entry.name
            target = folder / found.name
            if found.suffix == REPLACED:
                shutil.copyfile(found, target)
            else:
                link_or_copy(found, target)
    except FileNotFoundError:
        shutil.rmtree(folder)
        return False
    return True


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
        index.config_reader("Manual")  # else a thread reads, and locks, what this one writes
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


def _refuse_full_disk(folder: Path, error: ValueError) -> None:
    """Raise OSError if that is what the engine, whose threads say little, has met."""
    told = any(f"(os error {number})" in str(error) for number in FULL_DISK)
    if told or shutil.disk_usage(folder).free < HEAP_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


def _schema() -> Any:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field(ROW, indexed=True, fast=True)
    builder.add_text_field(WORDS, tokenizer_name="whitespace", index_option="freq")
    return builder.build()
