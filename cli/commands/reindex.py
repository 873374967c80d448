"""``millpond reindex``: another index of the same vectors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import qdrant_options as qdrant
from cli.commands.change import FolderArgument
from cli.console import format_seconds, message
from cli.summary import count_rows, report_recall

if TYPE_CHECKING:
    from indexes import Manifest
    from indexes.backends.backend import Backend

__all__ = ["reindex"]


def reindex(
    folder: FolderArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR2", help="The new index.", show_default="in place of DIR"
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What stores the vectors: faiss or qdrant.",
            show_default="as in DIR",
        ),
    ] = None,
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="As in millpond index.",
            show_default="as in DIR, or Flat with another backend",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the index that DIR2, or the collection, holds."),
    ] = False,
    url: qdrant.UrlOption = None,
    memory: qdrant.MemoryOption = False,
    collection: qdrant.CollectionOption = None,
    ask_key: qdrant.AskKeyOption = False,
    grpc: qdrant.GrpcOption = False,
    parallel: qdrant.ParallelOption = None,
    shards: qdrant.ShardsOption = None,
    replicas: qdrant.ReplicasOption = None,
    quantization: qdrant.QuantizationOption = None,
    vectors_on_disk: qdrant.VectorsOnDiskOption = False,
    payload_on_disk: qdrant.PayloadOnDiskOption = False,
    graph_on_disk: qdrant.GraphOnDiskOption = False,
    timeout_seconds: qdrant.TimeoutSecondsOption = None,
    green_seconds: qdrant.GreenSecondsOption = None,
) -> None:
    """Build another index of the same vectors.

    Nothing is embedded and no model is loaded. The new index takes the place of the old one in
    one step, or goes to a folder of its own, which shares the vectors on disk with the first.

    \b
    Examples:
      millpond reindex my-index --factory HNSW32
      millpond reindex my-index --out other --backend qdrant
    """
    from indexes import check_target, read_manifest
    from indexes import reindex as build_again

    flags = qdrant.QdrantFlags(
        url=url,
        memory=memory,
        collection=collection,
        ask_key=ask_key,
        grpc=grpc,
        parallel=parallel,
        shards=shards,
        replicas=replicas,
        quantization=quantization,
        vectors_on_disk=vectors_on_disk,
        payload_on_disk=payload_on_disk,
        graph_on_disk=graph_on_disk,
        timeout_seconds=timeout_seconds,
        green_seconds=green_seconds,
    )
    manifest = read_manifest(folder)
    target = folder if out is None else out
    in_place = target.resolve() == folder.resolve()
    check_target(target, overwrite or in_place)
    if not in_place:
        _check_collection(folder, manifest, backend, flags)
    own = in_place and collection == manifest.settings.get("collection")
    store = _choose_store(manifest, backend, factory, overwrite or own, flags)
    started = time.monotonic()
    built = build_again(
        folder, out=out, backend=backend, factory=factory, overwrite=overwrite, store=store
    )
    message(
        f"Reindexed {count_rows(built)} in {format_seconds(time.monotonic() - started)}: {target} "
        f"({built.backend}, {built.factory})"
    )
    report_recall(built, target)


def _check_collection(
    folder: Path, manifest: Manifest, backend: str | None, flags: qdrant.QdrantFlags
) -> None:
    """Raise UsageError where another folder would take the collection that this one needs."""
    from retrieval.errors import UsageError

    settings = manifest.settings
    if settings.get("mode") != "server" or backend not in (None, manifest.backend):
        return
    place = (flags.url, flags.collection) if flags.typed else (settings["url"], None)
    if place in ((settings["url"], None), (settings["url"], settings["collection"])):
        raise UsageError(
            f"The vectors of {folder} are searched in the collection {settings['collection']!r} at "
            f"{settings['url']}, and DIR2 needs one of its own. Type --url URL --collection NAME, "
            f"or --backend faiss."
        )


def _choose_store(
    manifest: Manifest,
    backend: str | None,
    factory: str | None,
    overwrite: bool,
    flags: qdrant.QdrantFlags,
) -> Backend | None:
    """Return the store that was described, None for the one that the index has."""
    same = backend in (None, manifest.backend)
    if same and not flags.typed:
        return None
    kind = factory or (manifest.factory if same else "Flat")
    return qdrant.choose_store(backend or manifest.backend, kind, overwrite, flags)
