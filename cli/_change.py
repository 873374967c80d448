"""What ``millpond add``, ``update`` and ``delete`` have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cli._console import message, progress, warn
from cli._models import (
    ReportingEncoder,
    check_index_speed,
    choose_speed,
    keep_memory,
    load_encoder,
    note_untrained,
)
from cli._passages import Reading, load_splitter
from cli._server_key import use_asked_key
from cli._summary import report_change

if TYPE_CHECKING:
    from embedder import Embedder
    from indexes import Change, Manifest

__all__ = [
    "COMPACT_SHARE",
    "CompactAtOption",
    "CorpusArgument",
    "Embedding",
    "FolderArgument",
    "IndexModelOption",
    "RestartOption",
    "embed_change",
]

COMPACT_SHARE = 0.25
"""What --help shows; a test holds it equal to ``ChangeConfig.compact_share``."""

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")]
CorpusArgument = Annotated[
    str, typer.Argument(metavar="CORPUS", help="Anything that millpond index reads; - for stdin.")
]
IndexModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", show_default="the model that made the index"),
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Drop what an unfinished run embedded; begin anew.")
]
CompactAtOption = Annotated[
    float,
    typer.Option(
        "--compact-at",
        metavar="SHARE",
        min=0,
        max=1,
        help="Clear deleted rows away when they are more than this share, 0 to 1.",
    ),
]

Carry: TypeAlias = "Callable[..., Change]"
"""``add_documents`` or ``update_documents``, with what they alone are given."""


@dataclass(frozen=True)
class Embedding:
    """An add or update as it was typed."""

    folder: Path
    corpus: str
    model: str | None
    device: str | None
    speed: str | None
    skip_bad: bool
    restart: bool
    compact_at: float
    ask_key: bool


def embed_change(asked: Embedding, carry: Carry) -> None:
    """Read the corpus, load the model of the index, let ``carry`` change it, say what was done.

    What can be refused without the model is refused before it is loaded.
    """
    from indexes import ChangeConfig, read_manifest
    from retrieval import read_corpus

    use_asked_key(asked.folder, asked.ask_key)
    source = read_corpus(asked.corpus, skip_bad=asked.skip_bad)
    config = ChangeConfig(
        corpus_name=source.name,
        reading={"skip_bad": asked.skip_bad},
        restart=asked.restart,
        compact_share=asked.compact_at,
    )
    manifest = read_manifest(asked.folder)
    if asked.corpus != "-":
        next(iter(source), None)  # an empty or wholly unreadable corpus shows here
    made = manifest.fingerprint
    speed = choose_speed(asked.speed, made)
    keep_memory()
    encoder = load_encoder(asked.model or made.model, asked.device, speed)
    check_index_speed(made, encoder.fingerprint, speed, str(asked.folder))
    _check_model(asked, manifest, encoder)
    split = load_splitter(encoder, manifest.passages)
    noun = "passages" if split else "documents"
    started = time.monotonic()
    with progress("Embedding", None, noun) as advance:
        reading = Reading(source, encoder, manifest.passages)
        change = carry(
            ReportingEncoder(encoder, advance),
            reading,
            asked.folder,
            config,
            split=split,
            resumed=lambda rows: message(f"Going on: {rows:,} {noun} were stored before."),
        )
    report_change(change, asked.folder, time.monotonic() - started)
    if source.skipped:
        warn(f"{source.skipped:,} bad records were skipped. The first: {source.first_skipped[0]}")
    note_untrained(encoder)


def _check_model(asked: Embedding, manifest: Manifest, encoder: Embedder) -> None:
    """Raise FingerprintError unless this model made the index."""
    from retrieval.errors import FingerprintError

    made, found = manifest.fingerprint, encoder.fingerprint
    if made.digest == found.digest:
        return
    advice = f"Leave --model out, or type --model {made.model}"
    if asked.model is None:
        advice = f"{made.model!r} has changed since; bring the old one back"
    raise FingerprintError(
        f"{asked.folder} was made with {made.model!r}, and {found.model!r} makes other vectors: "
        f"{'; '.join(made.differences(found))}. {advice}, or index the corpus again."
    )
