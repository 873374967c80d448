"""``millpond index``: a corpus becomes an index folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import format_seconds, message, print_line, progress
from cli.models import (
    ReportingEncoder,
    count_rows,
    instruct,
    load_encoder,
    load_splitter,
    note_untrained,
    report_built,
)
from cli.options import (
    AddressOption,
    ArmsOption,
    DeviceOption,
    EngineOption,
    InstructionOption,
    LanguageOption,
    ModelOption,
    OverlapOption,
    PassagesOption,
    RestartOption,
    SkipBadOption,
    SpeedOption,
    TrustOption,
    WholeOption,
    WorkersOption,
    choose_arms,
    choose_engine,
    choose_passages,
    flag,
    option,
)
from cli.reading import (
    CorpusArgument,
    EncodingOption,
    Fields,
    IdOption,
    Reading,
    SqlOption,
    TemplateOption,
    TextOption,
    TitleOption,
    decide_passages,
)
from cli.store import (
    ANY_DIMENSION,
    EXAMPLE,
    PANEL,
    AskKeyOption,
    QdrantFlags,
    StoreOption,
    UrlOption,
    read_qdrant_options,
)
from embedder.environment import keep_freed_memory
from retrieval.errors import count_noun

if TYPE_CHECKING:
    from indexes import Manifest
    from retrieval import Document


def index(
    corpus: CorpusArgument,
    out: Annotated[Path, option("DIR", "The index folder.", "--out", "-o")],
    model: ModelOption = None,
    instruction: InstructionOption = None,
    backend: Annotated[str, option("NAME", "What stores the vectors: faiss or qdrant.")] = "faiss",
    factory: Annotated[
        str,
        option(
            "TYPE",
            "Flat is exact, HNSW32 is fast for millions of documents. FAISS takes any "
            "of its factory strings (IVF256,Flat or SQ8), Qdrant takes Flat, HNSW, "
            "HNSW32 and HNSW32,ef200.",
        ),
    ] = "Flat",
    vectors: Annotated[
        str, option("TYPE", "float32, or float16: half the size, three digits.")
    ] = "float32",
    passages: PassagesOption = None,
    overlap: OverlapOption = None,
    whole: WholeOption = False,
    arms: ArmsOption = None,
    language: LanguageOption = None,
    limit: Annotated[int | None, option("N", "Read only the first N documents.", min=1)] = None,
    skip_bad: SkipBadOption = False,
    doc_id: IdOption = "",
    title: TitleOption = "",
    text: TextOption = "",
    text_template: TemplateOption = "",
    encoding: EncodingOption = "",
    sql: SqlOption = "",
    overwrite: Annotated[bool, flag("--overwrite", "Replace the index that DIR holds.")] = False,
    restart: RestartOption = False,
    device: DeviceOption = None,
    speed: SpeedOption = "exact",
    trust_remote_code: TrustOption = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    url: UrlOption = None,
    store: StoreOption = None,
    ask_key: AskKeyOption = False,
    store_example: Annotated[
        bool,
        typer.Option(
            "--store-example",
            is_eager=True,
            callback=_show_example,
            help="Print a commented file for --store, and exit.",
            rich_help_panel=PANEL,
        ),
    ] = False,
) -> None:
    """Read a corpus, embed every document, write an index folder.

    The index appears whole or not at all. If a run is killed, the same command continues from what
    it had embedded.

    \b
    Examples:
      millpond index python-stdlib --out demo-index
      millpond index corpus.jsonl --out my-index --model smollm2-135m:mean+bidirectional
      millpond index corpus.jsonl --out my-index --backend qdrant --factory HNSW
      millpond index README.md docs --out pages
      millpond index shop.csv --out shop --id sku --text name,description
    """
    from indexes import Index, IndexConfig, check_target

    described, flags = None, QdrantFlags(url, store, ask_key)
    if backend == "qdrant" or flags != QdrantFlags():
        from indexes.backends.qdrant import configured_backend

        options = read_qdrant_options(backend, factory, flags, out.resolve().name)
        if options is not None:
            described = configured_backend(replace(options, overwrite=overwrite))
    fields = Fields(doc_id, title, text, text_template, encoding, sql)
    source = fields.read(corpus, skip_bad=skip_bad, limit=limit)
    config = IndexConfig(
        backend=backend,
        factory=factory,
        overwrite=overwrite,
        restart=restart,
        corpus_name=source.name,
        reading={"limit": limit, "skip_bad": skip_bad},
        vector_type=vectors,
        passages=choose_passages(passages, overlap, whole),
        arms=IndexConfig.arms if arms is None else choose_arms(arms),
        language=language,
    )
    check_target(out, overwrite)
    trust = trust_remote_code
    model = instruct(model, instruction)
    chosen = choose_engine(engine, address, workers, model, device, speed, trust=trust)
    if described is not None:
        described.check(ANY_DIMENSION, factory)  # a server that is down shows before a model loads
    if "-" not in corpus:
        next(iter(source), None)  # an empty or wholly unreadable corpus shows before a model loads
    on = "cpu" if chosen else device  # the GPU is the workers'
    keep_freed_memory()
    encoder = load_encoder(model, on, speed, trust_remote_code=trust)
    documents: Iterable[Document] = source
    if not config.passages:
        found, documents = decide_passages(source, encoder, whole)
        config = replace(config, passages=found)
    split = load_splitter(encoder, config.passages)
    reading = Reading(source, encoder, config.passages, documents, encoding)
    total, noun = (None, "passage") if split else (source.count_hint, "document")
    started, before = time.monotonic(), 0
    with progress("Indexing", total, f"{noun}s") as advance:

        def going_on(documents: int) -> None:
            nonlocal before
            before = documents
            done = count_noun(documents, f"{noun} was", f"{noun}s were")
            message(f"Continuing: {done} embedded before.")
            if chosen is None:
                advance(documents)

        manifest = Index.create(
            out,
            encoder if chosen else ReportingEncoder(encoder, advance),
            reading,
            config,
            store=described,
            engine=chosen,
            progress=advance if chosen else lambda _: None,
            split=split,
            skipped=lambda: source.skipped,
            resumed=going_on,
        ).manifest
    _summarise(manifest, reading.count, before, out, time.monotonic() - started)
    reading.report()
    report_built(manifest, out)
    note_untrained(encoder)
    message(f"Next: millpond search {shlex.quote(str(out))} {shlex.quote(reading.question)}")


def _show_example(wanted: bool) -> None:
    if wanted:
        print_line(EXAMPLE.rstrip("\n"))
        raise typer.Exit


def _summarise(manifest: Manifest, count: int, before: int, out: Path, seconds: float) -> None:
    cut = f" as {count_rows(manifest)}" if manifest.passages else ""
    rate = (manifest.documents - before) / seconds if seconds else 0.0  # of this run
    done = count_noun(count, "document") + cut
    message(f"Indexed {done} in {format_seconds(seconds)} ({rate:,.1f} a second): {out}")
