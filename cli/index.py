"""``millpond index``: a corpus becomes an index folder."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    backend: Annotated[str, typer.Option(metavar="NAME", help="What stores the vectors.")] = (
        "faiss"
    ),
    factory: Annotated[
        str,
        typer.Option(
            metavar="TYPE", help="A FAISS factory string: Flat is exact, HNSW32 quick for millions."
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
) -> None:
    """Read a corpus, embed every document, write an index folder.

    The index appears whole or not at all. A run that was killed goes on, when the same command is
    typed again, from what it had embedded.

    \b
    Examples:
      millpond index python-stdlib --out demo-index
      millpond index corpus.jsonl --out my-index --model smollm2-135m:mean+bidirectional
    """
    from indexes import WriteConfig, check_target, write_corpus
    from retrieval import read_corpus

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
