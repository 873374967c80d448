"""``millpond embed``: texts become vectors in a file."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.console import format_seconds, message, progress
from cli.models import ReportingEncoder, instruct, load_encoder, note_untrained, warn_skipped
from cli.options import (
    DeviceOption,
    InstructionOption,
    ModelOption,
    SkipBadOption,
    SpeedOption,
    TrustOption,
    argument,
    flag,
    option,
)
from cli.output import check_output, confirm_replacing
from cli.reading import warn_cut
from cli.vectors import ENDINGS, Encode, Made, keep_parts, output_files, write_vectors
from embedder.environment import keep_freed_memory
from retrieval.errors import UsageError, count_noun

RoleOption = Annotated[
    Literal["query", "document"],
    typer.Option("--as", help="Which of the model's two prompts to use."),
]


def embed(
    file: Annotated[
        str,
        argument(
            "FILE",
            "A .txt file with one text per line (the line number is its id), or "
            "anything that 'millpond index' reads; - for JSON lines on stdin.",
        ),
    ],
    out: Annotated[Path, option("OUT", f"The file to write: {ENDINGS}.", "--out", "-o")],
    model: ModelOption = None,
    instruction: InstructionOption = None,
    role: RoleOption = "document",
    overwrite: Annotated[bool, flag("--overwrite", "Replace OUT without asking.")] = False,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            "Keep what is embedded in OUT.parts until OUT is whole, and go on from there.",
        ),
    ] = False,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    speed: SpeedOption = "exact",
    trust_remote_code: TrustOption = False,
) -> None:
    """Turn texts into vectors in a file.

    The ending of OUT says the format. Parquet has the columns id, embedding (a fixed-size list of
    float32) and text_hash (by which 'millpond train' finds a teacher's vector), and the model's
    fingerprint in the schema's metadata. Of v.npy, the ids stand beside it in v.ids.txt, one a
    line. CSV has the columns id, v0, v1 ..., JSON lines the keys id and embedding. A file appears
    whole or not at all.

    \b
    Examples:
      millpond embed sentences.txt --out sentences.parquet
      millpond embed queries.jsonl --out queries.parquet --as query
    """
    from embedder.splitting import Coverage
    from retrieval.texts import open_texts

    if instruction is not None and role == "document":
        raise UsageError(
            "--instruction goes before queries, and the texts are embedded as documents. Add "
            "--as query, or leave --instruction out."
        )
    check_output(out, file)
    files = output_files(out)
    for path in files[1:]:
        check_output(path, file)
    confirm_replacing(*files, overwrite=overwrite, may_ask=file != "-")
    texts = open_texts(file, skip_bad=skip_bad)
    if file != "-":
        next(iter(texts), None)  # an empty or wholly unreadable file shows before a model loads
    keep_freed_memory()
    model = instruct(model, instruction)
    encoder = load_encoder(model, device, speed, trust_remote_code=trust_remote_code)
    coverage = Coverage(encoder)
    started = time.monotonic()
    with progress("Embedding", texts.count_hint, "texts") as advance:
        reporting = ReportingEncoder(encoder, advance)
        encode: Encode = reporting.encode_queries if role == "query" else reporting.encode_documents
        what = Made(encoder.dimension, encoder.fingerprint, role)
        with ExitStack() as stack:
            if resume:
                encode = stack.enter_context(keep_parts(out, encode, what, advance))
            pairs = ((one.doc_id, one.content) for one in texts)
            count = write_vectors(coverage.passing(pairs), encode, out, what)
    seconds = time.monotonic() - started
    named = " and ".join(map(str, files))
    message(
        f"Embedded {count_noun(count, 'text')} as {role} in {format_seconds(seconds)}, "
        f"{encoder.dimension} numbers each: {named}"
    )
    for note in texts.notes:
        message(note)
    warn_skipped(texts)
    warn_cut(coverage, "text", "cut those into shorter ones")
    note_untrained(encoder)
