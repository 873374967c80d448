"""``millpond index``: a corpus becomes an index folder."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import _qdrant_options as qdrant
from cli._console import format_seconds, message, progress, warn
from cli._models import ReportingEncoder, load_encoder, note_untrained
from cli._options import DeviceOption, ModelOption, SkipBadOption

if TYPE_CHECKING:
    from indexes import Manifest
    from retrieval import Corpus

__all__ = ["index"]

EXAMPLE_QUESTION = "delete a folder and everything in it"


def index(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="A .jsonl, .csv, .tsv or .parquet file, a BEIR folder, a folder of .txt, .md "
            "and .rst files, - for JSON lines on stdin, or python-stdlib (built in).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The index folder.")],
    model: ModelOption = None,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="What stores the vectors: faiss or qdrant.")
    ] = "faiss",
    factory: Annotated[
        str,
        typer.Option(
            metavar="TYPE",
            help="Flat is exact, HNSW32 quick for millions. FAISS takes any of its factory strings "
            "(IVF256,Flat, SQ8), Qdrant Flat, HNSW, HNSW32 (edges) and HNSW32,ef200 (breadth).",
        ),
    ] = "Flat",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Read only the first N documents.")
    ] = None,
    skip_bad: SkipBadOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the index that DIR holds.")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Drop what an unfinished run embedded; begin anew."),
    ] = False,
    device: DeviceOption = None,
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
    """Read a corpus, embed every document, write an index folder.

    The index appears whole or not at all. A run that was killed goes on, when the same command is
    typed again, from what it had embedded.

    \b
    Examples:
      millpond index python-stdlib --out demo-index
      millpond index corpus.jsonl --out my-index --model smollm2-135m:mean+bidirectional
      millpond index corpus.jsonl --out my-index --backend qdrant --factory HNSW
    """
    from indexes import WriteConfig, check_target, write_corpus
    from retrieval import read_corpus

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
    store = qdrant.choose_store(backend, factory, overwrite, flags)
    source = read_corpus(corpus, skip_bad=skip_bad, limit=limit)
    config = WriteConfig(
        backend=backend,
        factory=factory,
        overwrite=overwrite,
        restart=restart,
        corpus_name=source.name,
        reading={"limit": limit, "skip_bad": skip_bad},
    )
    check_target(out, overwrite)
    if store is not None:
        store.check(
            qdrant.ANY_DIMENSION, factory
        )  # a server that is down shows before a model loads
    if corpus != "-":
        next(iter(source), None)  # an empty or wholly unreadable corpus shows before a model loads
    encoder = load_encoder(model, device)
    started = time.monotonic()
    with progress("Indexing", source.count_hint, "documents") as advance:

        def going_on(documents: int) -> None:
            message(f"Going on: {documents:,} documents were embedded before.")
            advance(documents)

        manifest = write_corpus(
            ReportingEncoder(encoder, advance),
            source,
            out,
            config,
            store=store,
            skipped=lambda: source.skipped,
            resumed=going_on,
        )
    _summarise(manifest, source, out, time.monotonic() - started)
    note_untrained(encoder)
    message(f'Next: millpond search {shlex.quote(str(out))} "{EXAMPLE_QUESTION}"')


def _summarise(manifest: Manifest, source: Corpus, out: Path, seconds: float) -> None:
    count = manifest.documents
    noun = "document" if count == 1 else "documents"
    rate = count / seconds if seconds else 0.0
    message(f"Indexed {count:,} {noun} in {format_seconds(seconds)} ({rate:,.1f} a second): {out}")
    if source.skipped:
        warn(f"{source.skipped:,} bad records were skipped. The first: {source.first_skipped[0]}")
