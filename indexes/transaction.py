"""The one way to change an index folder: take the lock, read the state, publish by one rename.

::

    FOLDER/manifest.json       published last, by one rename: this is the commit
    FOLDER/documents/00000.arrow   later generations: documents.2/00000.arrow
    FOLDER/vectors/00000.npy   vectors.2/00000.npy
    FOLDER/fields.arrow        typed metadata, for filters
    FOLDER/deleted.npy         the rows that were deleted
    FOLDER/blank.npy           the rows that hold no word
    FOLDER/index.faiss         the backend's own files, index.2.faiss
    FOLDER/lexical/            the lexical arm, lexical.2
    FOLDER/.building/          a build in progress, or one that was killed; see ``staging``
    FOLDER/.lock               held by the writer

A file of ours that the manifest does not list was left by a killed run or belongs to an earlier
generation; the next writer deletes it. Other files are never touched.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from indexes.backends.registry import BACKENDS
from indexes.snapshot import Snapshot
from indexes.storage.document_writer import BLANK_NAME, DELETED_NAME, FIELDS_NAME
from indexes.storage.files import FileEntry, refuse_links
from indexes.storage.manifest import (
    BUILDING_NAME,
    DOCUMENTS_NAME,
    FORMAT_VERSION,
    LEXICAL_NAME,
    MANIFEST_NAME,
    SHARD_ROLES,
    VECTORS_NAME,
    Manifest,
    read_manifest,
)
from indexes.storage.staging import DONE_NAME, PLAN_NAME, Staging, has_finished_shards
from retrieval import Scalar
from retrieval.disk import FULL_DISK, sync_path, sync_tree
from retrieval.errors import (
    DuplicateIdError,
    IndexCorruptError,
    IndexExistsError,
    SourceNotFoundError,
    StorageError,
    UsageError,
    count_noun,
)

LOCK_NAME = ".lock"
GENERATION = re.compile(r"(?P<stem>[a-z]+)(?:\.(?P<number>[0-9]+))?(?P<suffix>\.[a-z]+)?")


class Transaction:
    """An index folder that this process alone may write; made by ``begin``.

    What is staged becomes the index by ``publish``, whole or not at all. Without it the index
    stays what it was.

    Parameters
    ----------
    folder : where the index is, or will be.
    generation : of the files to be published; 1 has plain names.
    known : the index as it was opened before it was locked, used again if it is still that.

    Attributes
    ----------
    published : the manifest of the new state; None before ``publish``.
    read : what ``snapshot`` returned; None before.
    """

    def __init__(self, folder: Path, generation: int, known: Snapshot | None = None) -> None:
        self.folder = folder
        self.generation = generation
        self.published: Manifest | None = None
        self.read: Snapshot | None = None
        self._known = known
        self._staged: list[Staging] = []

    @property
    def snapshot(self) -> Snapshot:
        """The index to be changed, as it is now that nobody else can change it.

        Raises
        ------
        SourceNotFoundError, IndexCorruptError : as ``Snapshot.open``.
        """
        if self.read is None:
            known = self._known
            fresh = known is None or read_manifest(self.folder) != known.manifest
            self.read = Snapshot.open(self.folder) if fresh else known
        assert self.read is not None
        return self.read

    @property
    def staging(self) -> Path:
        """The folder in which everything is written before it is published."""
        return self.folder / BUILDING_NAME

    def stage(
        self, plan: Mapping[str, Scalar], *, source: str, dimension: int, vector_type: str
    ) -> Staging:
        """Return where new rows are written, with those that an earlier run has left.

        Raises
        ------
        UsageError : an earlier run had another plan.
        StorageError : the disk refuses.
        """
        with storage_errors(self.folder):
            staging = Staging(
                self.staging, plan, source=source, dimension=dimension, vector_type=vector_type
            )
        self._staged.append(staging)
        return staging

    def abandon(self) -> None:
        """Close every file that is being written."""
        for staging in self._staged:
            staging.abandon()

    def staged_files(self) -> dict[str, FileEntry]:
        """Return every staged file but the shards, by role, under its present name."""
        entries: dict[str, FileEntry] = {}
        for path in sorted(self.staging.rglob("*")):
            name = path.relative_to(self.staging).as_posix()
            top = name.partition("/")[0]
            if path.is_file() and top not in (*SHARD_ROLES, DONE_NAME, PLAN_NAME):
                role = name if top == LEXICAL_NAME else name.partition(".")[0]
                role = name if role in entries else role
                entries[role] = FileEntry.of(path, f"{BUILDING_NAME}/{name}")
        return entries

    def publish(self, draft: Manifest) -> Manifest:
        """Make the staged files the index: after this call, or not at all.

        ``draft`` names the files as they lie now; the manifest that is returned, as they are
        published.
        """
        _refuse_moved(self.folder)
        files = {role: self._published(entry) for role, entry in draft.files.items()}
        manifest = replace(draft, files=files, format_version=FORMAT_VERSION)
        staged = [path for path in sorted(self.staging.iterdir()) if _generation(path.name)]
        written = self.staging / MANIFEST_NAME
        written.write_bytes(manifest.encode())
        sync_tree(self.staging)
        for path in staged:
            path.rename(self.folder / _name_of(path.name, self.generation))
        sync_path(self.folder)
        commit(written, self.folder / MANIFEST_NAME)
        self.published = manifest
        sync_path(self.folder)
        with suppress(OSError):  # a parent that may not be read cannot be synced
            sync_path(self.folder.parent)
        return manifest

    def _published(self, entry: FileEntry) -> FileEntry:
        top, _, name = entry.name.partition("/")
        if top != BUILDING_NAME:
            return entry
        return replace(entry, name=_name_of(name, self.generation))


def commit(draft: Path, manifest: Path) -> None:
    """Rename the manifest into place, the one step that makes a new index visible."""
    draft.replace(manifest)


@contextmanager
def begin(
    path: Path, *, overwrite: bool = True, restart: bool = True, known: Snapshot | None = None
) -> Iterator[Transaction]:
    """Lock the folder, clear what dead runs left, and clear up again at the end.

    Whatever happens inside, on leaving the folder holds the index that its manifest describes
    and, where that was not replaced, the finished shards of this build; a folder that was made
    for the occasion and stayed empty is removed.

    Parameters
    ----------
    path : the index folder, made if missing.
    overwrite : whether it may hold an index already.
    restart : drop the shards of earlier runs.
    known : see ``Transaction``.

    Raises
    ------
    IndexExistsError, UsageError, IndexCorruptError : as ``check_target``.
    StorageError : another process is writing, or the folder is not writable, or it was moved or
        deleted in the meantime.
    """
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        with storage_errors(path):
            _refuse_dangling(path)
            path.mkdir(parents=True, exist_ok=True)
            _refuse_links(path)  # before the lock, which would be written through a link
        with _locked(path):
            check_target(path, overwrite)
            with storage_errors(path):
                generation = _prepare(path, restart)
            before = {entry.name for entry in path.iterdir()}
            change = Transaction(path, generation, known)
            try:
                yield change
            except BaseException as error:
                change.abandon()
                _refuse_moved(path)
                _take_back(path, generation)
                # A corpus with a repeated id has to change, so nothing can go on from its shards.
                _clean(path, keep=before, keep_shards=not isinstance(error, DuplicateIdError))
                raise
            else:
                _clean(path, keep=before)
    finally:
        for folder in missing:
            with suppress(OSError):  # not empty: it holds an index now
                folder.rmdir()


def check_target(path: Path | str, overwrite: bool = False) -> None:
    """Return if an index may be written to ``path``; costs nothing, changes nothing.

    Raises
    ------
    IndexExistsError : it holds an index and ``overwrite`` is false.
    UsageError : it is a file, a folder of something else, or a newer millpond's index.
    IndexCorruptError : something of an index in it is a symbolic link.
    """
    with storage_errors(Path(path)):
        _check_target(Path(path), overwrite)


def _check_target(folder: Path, overwrite: bool) -> None:
    _refuse_dangling(folder)
    if not folder.exists():
        parent = next(parent for parent in folder.parents if parent.exists())
        if not parent.is_dir():
            raise UsageError(
                f"{parent} is a file, so {folder} cannot be made. Choose another path."
            )
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; an index needs a folder. Choose another path.")
    _refuse_links(folder)
    names = {entry.name for entry in folder.iterdir()} - {LOCK_NAME}
    ours = {name for name in names if _generation(name)}
    if MANIFEST_NAME in names:
        manifest = _read_if_whole(folder)
        if manifest is None and not any(name.startswith(DOCUMENTS_NAME) for name in ours):
            raise _foreign(folder)  # many programs have a manifest.json
        if not overwrite:
            raise IndexExistsError(_describe_existing(folder, manifest))
    elif names and (BUILDING_NAME not in names or names - ours - {BUILDING_NAME}):
        raise _foreign(folder)


def _refuse_dangling(folder: Path) -> None:
    """Raise UsageError if the path, or the part of it that exists, is a link to nothing."""
    for part in (folder, *folder.parents):
        if part.is_symlink() and not part.exists():
            raise UsageError(
                f"{part} is a symbolic link to {part.readlink()}, which is not there. Make that "
                "folder, or choose another path."
            )


def _refuse_links(folder: Path) -> None:
    """Raise an error if what a writer writes, renames or deletes is a link, or another's lock."""
    lock = folder / LOCK_NAME
    if not lock.is_symlink() and (lock.is_dir() or (lock.is_file() and lock.stat().st_size)):
        raise UsageError(
            f"{lock} belongs to another program: the lock of an index is an empty file. It is left "
            "alone; choose another folder, or move it away."
        )
    fixed = [folder / name for name in (LOCK_NAME, MANIFEST_NAME, BUILDING_NAME)]
    ours = [entry for entry in folder.iterdir() if _generation(entry.name)]
    refuse_links([*fixed, *ours])
    refuse_links((folder / BUILDING_NAME).rglob("*"))


def _refuse_moved(folder: Path) -> None:
    """Raise StorageError if the folder that this process has locked is no longer there."""
    if not (folder / LOCK_NAME).exists():
        raise StorageError(
            f"{folder} was moved or deleted while it was written, so nothing was published. Type "
            "the same command again, with the new name of the folder."
        )


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that says how much is free and how much was needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            reason = error.strerror or str(error)
            where = error.filename or path
            raise StorageError(
                f"The index {path} cannot be written: {where}: {reason}. "
                "Check the permissions, or choose another folder."
            ) from error
        building = path / BUILDING_NAME
        needed = sum(f.stat().st_size for f in building.rglob("*") if f.is_file())
        free = shutil.disk_usage(path).free
        kept = (
            f": it goes on from the last finished shard. Or delete {building}"
            if has_finished_shards(building)
            else ""
        )
        raise StorageError(
            f"The disk of {path} is full: {free / 1e6:.1f} MB free after this index had taken "
            f"{needed / 1e6:.1f} MB. Free some space and run the same command again{kept}."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = path / LOCK_NAME
    lock = FileLock(file, timeout=0)
    with storage_errors(path):
        try:
            lock.acquire()
        except Timeout:
            raise StorageError(
                f"Another process is writing the index {path}, or another transaction of this "
                f"one. Wait for it to end, or choose another folder."
            ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # before the release, so that no other writer holds it
            file.unlink()
        lock.release()


def _prepare(path: Path, restart: bool) -> int:
    """Remove what dead runs left but finished shards, make ``.building``; return our generation."""
    names = {entry.name for entry in path.iterdir()}
    if restart:
        shutil.rmtree(path / BUILDING_NAME, ignore_errors=True)
    else:
        _take_back(path, _next_generation(path) - 1)
    # A damaged manifest cannot say which files belong to it, so all of them stay for now.
    _clean(path, keep=names if MANIFEST_NAME in names else set(), keep_shards=True)
    (path / BUILDING_NAME).mkdir(exist_ok=True)
    return _next_generation(path)


def _next_generation(path: Path) -> int:
    """Return one more than the highest generation of which there is a file."""
    return max((_generation(entry.name) for entry in path.iterdir()), default=0) + 1


def _name_of(name: str, generation: int) -> str:
    """Return what a file staged as ``name`` ("vectors/00000.npy") is called when published."""
    top, slash, rest = name.partition("/")
    if generation > 1:
        stem, dot, suffix = top.partition(".")
        top = f"{stem}.{generation}{dot}{suffix}"
    return top + slash + rest


def _generation(name: str) -> int:
    """Return the generation of a file of ours, counted from 1; 0 for any other file."""
    match = GENERATION.fullmatch(name)
    if match is None:
        return 0
    plain = match["stem"] + (match["suffix"] or "")
    known = {DOCUMENTS_NAME, VECTORS_NAME, LEXICAL_NAME, FIELDS_NAME, DELETED_NAME, BLANK_NAME}
    known = known.union(*(backend.files.values() for backend in BACKENDS.values()))
    return int(match["number"] or 1) if plain in known else 0


def _take_back(path: Path, generation: int) -> None:
    """Bring shards back that were moved to be published by a run that did not get to its end."""
    manifest = _read_if_whole(path)
    if manifest is None and (path / MANIFEST_NAME).exists():
        return  # damaged: what belongs to it cannot be told
    listed = _listed(manifest) if manifest is not None else set()
    staging = path / BUILDING_NAME
    for name in SHARD_ROLES:
        moved = path / _name_of(name, generation)
        unlisted = moved.is_dir() and moved.name not in listed
        if unlisted and (staging / DONE_NAME).is_dir() and not (staging / name).exists():
            moved.rename(staging / name)


def _clean(path: Path, *, keep: set[str], keep_shards: bool = False) -> None:
    """Delete every file of ours that the manifest does not list, and the staging folder.

    Without a readable manifest, every file of ours whose name is not in ``keep``. With
    ``keep_shards``, finished shards of the staging folder stay.
    """
    staging = path / BUILDING_NAME
    if not (keep_shards and has_finished_shards(staging)):
        shutil.rmtree(staging, ignore_errors=True)
    manifest = _read_if_whole(path)
    listed = keep if manifest is None else _listed(manifest)
    for entry in list(path.iterdir()):
        if not _generation(entry.name) or entry.name in listed:
            continue
        with suppress(OSError):  # some systems keep a file that a reader has open; next time
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _listed(manifest: Manifest) -> set[str]:
    """Return the names at the top of the folder that belong to the index."""
    return {entry.name.partition("/")[0] for entry in manifest.files.values()}


def _read_if_whole(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except (IndexCorruptError, SourceNotFoundError):
        return None


def _describe_existing(folder: Path, manifest: Manifest | None) -> str:
    what = "a damaged index"
    if manifest is not None:
        counted = count_noun(manifest.documents, "document")
        what = f"an index of {counted} by {manifest.fingerprint.model!r}"
    return f"{folder} already holds {what}. Type --overwrite to replace it, or another folder."


def _foreign(folder: Path) -> UsageError:
    return UsageError(
        f"{folder} holds files that are not an index; they are left alone. Choose a new or an "
        "empty folder."
    )
