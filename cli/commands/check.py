"""``millpond check``: whether an index is whole and undamaged."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import format_size, message, print_json, print_table, warn
from cli.models import describe_arms
from cli.options import FolderArgument, JsonOption
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_server
from retrieval.errors import FailureError, IndexCorruptError, StorageError, count_noun

if TYPE_CHECKING:
    from indexes import Manifest
    from indexes.backends.qdrant.store import CollectionState
    from indexes.storage.staging import Unfinished

SLOW_BYTES = 10**9
BLOCK_BYTES = 512
_PLACES = {"embedded": ", in the folder", "memory": ", in memory", "server": ", on a server"}
"""Where Qdrant keeps the vectors, by mode."""


def check(
    folder: FolderArgument,
    json: JsonOption = False,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
) -> None:
    """Check an index for damage.

    Reads every file and compares checksums; opens the index, which compares the counts of ids and
    vectors with the manifest; asks the Qdrant server, if one holds the vectors. Exits with 1 if
    anything is damaged or unfinished.

    \b
    Examples:
      millpond check demo-index
      millpond check demo-index --json
    """
    from indexes import Index
    from indexes.backends.qdrant.store import read_collection_state

    use_stored_server(folder, url, ask_key)
    manifest: Manifest | None = None
    damaged: dict[str, str] = {}
    try:
        manifest = _read_manifest(folder)
        # Before it is opened: Qdrant's engine may never return from a damaged file.
        manifest, damaged = _compare_files(folder, manifest)
        _refuse_damaged(folder, damaged, manifest)
        Index.open(folder)
        collection = read_collection_state(manifest)
        if collection is not None and collection.status == "red":  # so says the server itself
            raise StorageError(
                f"The Qdrant server {collection.url} says that the collection {collection.name!r} "
                f"is red: {collection.problem or 'it gives no reason'}. See the server's log."
            )
    except FailureError as error:
        # The facts go to stdout, the error itself to stderr.
        if json:
            known = {} if manifest is None else _to_json(folder, manifest, None)
            state = {"index": str(folder), "whole": False}
            print_json({**known, **state, "problem": str(error), "damaged": [*damaged]})
        elif manifest is not None:
            rows = [("damaged", f"{name}: {reason}") for name, reason in damaged.items()]
            print_table([*_describe(folder, manifest, None), *rows, ("state", "not whole")])
        raise
    if json:
        print_json(_to_json(folder, manifest, collection))
    else:
        print_table([*_describe(folder, manifest, collection), ("state", "whole")])
    _note_unfinished(folder)


def _read_manifest(folder: Path) -> Manifest:
    """Return the manifest; an unfinished first build is an error that states its progress."""
    from indexes import read_manifest
    from indexes.storage.staging import read_unfinished

    try:
        return read_manifest(folder)
    except IndexCorruptError:
        if (folder / "manifest.json").exists():
            raise
        unfinished = read_unfinished(folder)
        if unfinished is None:
            raise
        raise IndexCorruptError(
            f"{folder} holds no finished index: a build is running or was interrupted, "
            f"{_how_far(unfinished.documents, unfinished.shards)}. "
            f"{_go_on(folder, unfinished)}"
        ) from None


def _compare_files(folder: Path, manifest: Manifest) -> tuple[Manifest, dict[str, str]]:
    """Return the manifest, and the fault of each damaged file by its name."""
    from indexes import read_manifest
    from indexes.snapshot import find_damage

    size = sum(entry.bytes for entry in manifest.files.values())
    if size >= SLOW_BYTES:
        message(f"Reading {format_size(size)}, to compare every checksum.")
    damaged = find_damage(folder, manifest)
    if damaged and (newer := read_manifest(folder)) != manifest:
        return newer, find_damage(folder, newer)  # a writer replaced the index meanwhile
    return manifest, damaged


def _refuse_damaged(folder: Path, damaged: Mapping[str, str], manifest: Manifest) -> None:
    """Raise IndexCorruptError with the first damaged file and the number of the others."""
    if damaged:
        name, fault = next(iter(damaged.items()))
        others = len(damaged) - 1
        more = f" So {'is 1 other file' if others == 1 else f'are {others} other files'}."
        advice = "Index the corpus again with --overwrite."
        if damaged.keys() <= {entry.name for entry in manifest.lexical_files.values()}:
            advice = (
                "It belongs to the lexical arm alone: the index is searched by meaning meanwhile. "
                f"Make the arm again with: millpond reindex {shlex.quote(str(folder))} "
                f"--arms dense,lexical"
            )
        raise IndexCorruptError(
            f"{folder / name} is damaged: {fault}.{more if others else ''} {advice}"
        )


def _describe(
    folder: Path, manifest: Manifest, collection: CollectionState | None
) -> list[tuple[str, str]]:
    files = count_noun(len(manifest.files), "file")
    mode = manifest.settings.get("mode") if manifest.backend == "qdrant" else None
    rows = [
        ("index", str(folder)),
        ("backend", f"{manifest.backend}, {manifest.factory}{_PLACES.get(str(mode), '')}"),
        ("arms", describe_arms(manifest)),
        ("documents", f"{manifest.documents:,}"),
        ("dimension", f"{manifest.dimension}"),
        ("model", manifest.fingerprint.model),
        ("created", f"{manifest.created} by millpond {manifest.millpond}"),
        ("on disk", f"{format_size(_size_on_disk(folder))} in {files}"),
    ]
    if collection is not None:
        points = count_noun(collection.points, "point")
        rows.append(("collection", f"{collection.name} at {collection.url}"))
        rows.append(("holds", f"{points}, {collection.status}"))
    return rows


def _to_json(
    folder: Path, manifest: Manifest, collection: CollectionState | None
) -> dict[str, Any]:
    return {
        "index": str(folder),
        "whole": True,
        "backend": manifest.backend,
        "factory": manifest.factory,
        "arms": manifest.arms,
        "language": manifest.lexical.get("language"),
        "documents": manifest.documents,
        "dimension": manifest.dimension,
        "model": manifest.fingerprint.model,
        "created": manifest.created,
        "millpond": manifest.millpond,
        "disk_bytes": _size_on_disk(folder),
        "files": len(manifest.files),
        "collection": None if collection is None else asdict(collection),
    }


def _size_on_disk(folder: Path) -> int:
    """Return the bytes that the folder takes; holes in its files take none."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(
        BLOCK_BYTES * stat.st_blocks if hasattr(stat, "st_blocks") else stat.st_size
        for stat in found
    )


def _note_unfinished(folder: Path) -> None:
    """Say on stderr that a change to a whole index is in progress, or was killed before its end."""
    from indexes.storage.staging import COMPACTION, read_unfinished
    from indexes.transaction import LOCK_NAME

    unfinished = read_unfinished(folder)
    lock = folder / LOCK_NAME
    if unfinished is None:
        if lock.exists():
            warn(
                f"{lock}: a process is writing the index, or was killed. The next change sweeps it."
            )
    elif unfinished.change == COMPACTION or not unfinished.shards:
        what = "compaction of" if unfinished.change == COMPACTION else "change to"
        warn(
            f"A {what} the index is in progress, or was killed before it was finished. Nothing is "
            f"lost: what it left in {folder / '.building'} is swept by the next change."
        )
    else:
        made = unfinished.change == "index"
        what = "A new version of the index" if made else f"What millpond {unfinished.change} adds"
        warn(
            f"{what} is being built or was interrupted, "
            f"{_how_far(unfinished.documents, unfinished.shards)}. {_go_on(folder, unfinished)}"
        )


def _how_far(documents: int, shards: int) -> str:
    if not shards:
        return "before any document was saved"

    made, kept = count_noun(documents, "document"), count_noun(shards, "finished shard")
    return f"with {made} embedded in {kept}"


def _go_on(folder: Path, unfinished: Unfinished) -> str:
    source = shlex.quote(unfinished.corpus) if unfinished.corpus else "CORPUS"
    place = shlex.quote(str(folder))
    command = f"millpond {unfinished.change} {place} {source}"
    if unfinished.change == "index":
        replaces = " --overwrite" if (folder / "manifest.json").exists() else ""
        command = f"millpond index {source} --out {place}{replaces}"
    return (
        f"Wait for it, or repeat the command that started it, with the same options: {command}. "
        "It continues from there."
    )
