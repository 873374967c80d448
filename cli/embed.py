"""``millpond embed``: texts become a Parquet file of vectors."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli._console import format_seconds, message, progress
from cli._models import ReportingEncoder, keep_memory, load_encoder, note_untrained
from cli._options import DeviceOption, ModelOption, SkipBadOption, SpeedName, SpeedOption
from cli._output import check_output
from cli._texts import Texts
from cli._vectors import write_vectors

__all__ = ["Role", "embed"]


class Role(StrEnum):
    """Which of the model's two prompts goes with the texts."""

    QUERY = "query"
    DOCUMENT = "document"


def embed(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A .txt file with one text a line (its line number is its id), or whatever "
            "'millpond index' reads; - for JSON lines on stdin.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The .parquet file to write.")
    ],
    model: ModelOption = None,
    role: Annotated[
        Role, typer.Option("--as", help="Which of the model's two prompts to use.")
    ] = Role.DOCUMENT,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    speed: SpeedOption = SpeedName.EXACT,
) -> None:
    """Turn texts into vectors in a Parquet file.

    Columns: id, and embedding (a fixed-size list of float32). The schema's metadata holds the
    fingerprint of the model. The file appears whole or not at all.

    \b
    Examples:
      millpond embed sentences.txt --out sentences.parquet
      millpond embed queries.jsonl --out queries.parquet --as query
    """
    check_output(out)
    texts = Texts(file, skip_bad=skip_bad)
    if file != "-":
        next(iter(texts), None)  # an empty or wholly unreadable file shows before a model loads
    keep_memory()
    encoder = load_encoder(model, device, speed)
    started = time.monotonic()
    with progress("Embedding", texts.count_hint, "texts") as advance:
        reporting = ReportingEncoder(encoder, advance)
        as_query = role is Role.QUERY
        count = write_vectors(
            texts,
            reporting.encode_queries if as_query else reporting.encode_documents,
            out,
            dimension=encoder.dimension,
            fingerprint=encoder.fingerprint,
            role=role.value,
        )
    seconds = time.monotonic() - started
    noun = "text" if count == 1 else "texts"
    message(
        f"Embedded {count:,} {noun} as {role.value} in {format_seconds(seconds)}, "
        f"{encoder.dimension} numbers each: {out}"
    )
    texts.warn_skipped()
    note_untrained(encoder)
