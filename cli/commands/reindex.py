"""``millpond reindex``: another index of the same vectors."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.console import format_seconds, message
from cli.models import count_rows, report_built
from cli.options import FolderArgument, choose_arms, flag, option
from cli.store import (
    AskKeyOption,
    QdrantFlags,
    StoreOption,
    UrlOption,
    read_qdrant_options,
    use_stored_server,
)
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from indexes import Manifest
    from indexes.backends.qdrant import QdrantOptions


def reindex(
    folder: FolderArgument,
    out: Annotated[
        Path | None,
        option("DIR2", "Write it to this folder.", "--out", "-o", shown="in place of DIR"),
    ] = None,
    backend: Annotated[
        str | None, option("NAME", "What stores the vectors: faiss or qdrant.", shown="as in DIR")
    ] = None,
    factory: Annotated[
        str | None,
        option("TYPE", "As in millpond index.", shown="as in DIR, or Flat with another backend"),
    ] = None,
    arms: Annotated[
        str | None,
        option(
            "ARMS",
            "What the index is searched by: dense,lexical (meaning and words), or dense "
            "alone. Adds or drops the lexical arm.",
            "--arms",
            shown="as in DIR",
        ),
    ] = None,
    language: Annotated[
        str | None,
        option(
            "NAME",
            "Of the words: english, german ..., or none for code and identifiers.",
            shown="as in DIR, or detected",
        ),
    ] = None,
    overwrite: Annotated[
        bool, flag("--overwrite", "Replace the index in DIR2, or in the collection.")
    ] = False,
    url: UrlOption = None,
    store: StoreOption = None,
    ask_key: AskKeyOption = False,
) -> None:
    """Build another index of the same vectors.

    Nothing is embedded and no model is loaded. The new index takes the place of the old one in
    one step, or goes to a folder of its own, which shares the vectors on disk with the first.

    \b
    Examples:
      millpond reindex my-index --factory HNSW32
      millpond reindex my-index --out other --backend qdrant
      millpond reindex my-index --arms dense,lexical
    """
    from indexes import Index, check_target, read_manifest
    from indexes.backends.qdrant import configured_backend

    manifest = read_manifest(folder)
    target = folder if out is None else out
    in_place = target.resolve() == folder.resolve()
    check_target(target, overwrite or in_place)
    flags = QdrantFlags(url, store, ask_key)
    flags = _name_stored_server(folder, manifest, flags, stays=in_place, backend=backend)
    options = _read_options(manifest, backend, factory, flags, target, in_place)
    described = None
    if options is not None:
        own = in_place and options.collection == manifest.settings.get("collection")
        described = configured_backend(replace(options, overwrite=overwrite or own))
    started = time.monotonic()
    index = Index.open(folder)
    built = index.reindex(
        out=out,
        backend=backend,
        factory=factory,
        overwrite=overwrite,
        store=described,
        arms=None if arms is None else choose_arms(arms),
        language=language,
    ).manifest
    message(
        f"Reindexed {count_rows(built)} in {format_seconds(time.monotonic() - started)}: {target} "
        f"({built.backend}, {built.factory})"
    )
    report_built(built, target)


def _name_stored_server(
    folder: Path, manifest: Manifest, flags: QdrantFlags, *, stays: bool, backend: str | None
) -> QdrantFlags:
    """Let the server that holds the index be asked; return what describes the new store.

    In place, an address that is the index's own confirms it and changes none of its settings.
    """
    from indexes.backends.qdrant.options import check_url, origin

    if manifest.settings.get("mode") != "server" or not (flags.url or flags.ask_key):
        return flags
    if flags.url is not None:
        check_url(flags.url)
        if origin(flags.url) != origin(str(manifest.settings["url"])):
            return flags
    use_stored_server(folder, flags.url, flags.ask_key)
    if flags.store is None and (stays or backend not in (None, manifest.backend)):
        return QdrantFlags(None, None, False)
    return replace(flags, ask_key=False)  # the environment holds it now


def _read_options(
    manifest: Manifest,
    backend: str | None,
    factory: str | None,
    flags: QdrantFlags,
    target: Path,
    in_place: bool,
) -> QdrantOptions | None:
    """Return what the flags describe; None for another backend, and for the store of the index.

    Raises
    ------
    UsageError : another folder would take the collection that this index needs.
    """
    theirs = (manifest.settings.get("url"), manifest.settings.get("collection"))
    on_server = manifest.settings.get("mode") == "server"
    same = backend in (None, manifest.backend)
    options = None
    if flags.typed or not same:
        kind = factory or (manifest.factory if same else "Flat")
        name = str(theirs[1]) if on_server and in_place else target.resolve().name
        options = read_qdrant_options(backend or manifest.backend, kind, flags, name)
    named = None if options is None else (options.url, options.collection)
    if same and on_server and not in_place and _is_place(named, theirs):
        raise UsageError(
            f"The index is searched in the collection {theirs[1]!r} at {theirs[0]}, and DIR2 needs "
            f"one of its own. Type --url URL, name another collection in a --store file, or type "
            f"--backend faiss."
        )
    return options


def _is_place(named: tuple[str, str] | None, theirs: tuple[object, object]) -> bool:
    """Return whether it is the collection of the index, however its address is spelled."""
    from indexes.backends.qdrant.options import origin

    if named is None or named == theirs:
        return True
    return named[1] == theirs[1] and bool(named[0]) and origin(named[0]) == origin(str(theirs[0]))
