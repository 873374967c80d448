"""``millpond embed``: texts become vectors in a Parquet file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import format_seconds, message, progress
from cli.models import ReportingEncoder, keep_memory, load_encoder, note_untrained, warn_skipped
from cli.options import (
    DeviceOption,
    ModelOption,
    SkipBadOption,
    SpeedName,
    SpeedOption,
    TrustOption,
)
from cli.output import atomic_output, check_output

if TYPE_CHECKING:
    from retrieval import Fingerprint, Vectors

__all__ = ["write_vectors", "Role", "embed"]


_ROWS_AT_A_TIME = 512


def write_vectors(
    rows: Iterable[tuple[str, str]],
    encode: Callable[[Sequence[str]], Vectors],
    path: Path,
    *,
    dimension: int,
    fingerprint: Fingerprint,
    role: str,
) -> int:
    """Write columns ``id``, ``embedding`` and ``text_hash``; return the count.

    ``embedding`` is a fixed-size list of D float32, and ``text_hash`` 16 bytes that tell the text,
    by which ``[teacher] vectors`` of a training config finds its vector. The schema's metadata
    holds ``millpond.fingerprint`` (JSON) and ``millpond.role``. Holds 512 rows in memory; the file
    appears whole or not at all.

    Parameters
    ----------
    rows : id and text.
    encode : texts to float32 (N, D).
    role : "query" or "document".

    Raises
    ------
    StorageError : the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), dimension)
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("embedding", kind, nullable=False),
            pa.field("text_hash", pa.binary(16), nullable=False),
        ],
        metadata={
            "millpond.fingerprint": json.dumps(fingerprint.to_json()),
            "millpond.role": role,
        },
    )
    count = 0
    stream = iter(rows)
    with atomic_output(path) as beside, pq.ParquetWriter(beside, schema) as writer:
        while chunk := list(islice(stream, _ROWS_AT_A_TIME)):
            vectors = encode([text for _, text in chunk])
            writer.write_batch(_to_batch(chunk, vectors, schema))
            count += len(chunk)
    return count


def _to_batch(rows: Sequence[tuple[str, str]], vectors: Vectors, schema: Any) -> Any:
    """Return a record batch of ids and texts with their vectors (N, D)."""
    import pyarrow as pa

    from retrieval.texts import text_digest

    kind = schema.field("embedding").type
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), type=kind)
    ids = pa.array([name for name, _ in rows], pa.string())
    digests = pa.array([text_digest(text) for _, text in rows], pa.binary(16))
    return pa.record_batch([ids, lists, digests], schema=schema)


class Role(StrEnum):
    """Which of the model's two prompts goes with the texts."""

    QUERY = "query"
    DOCUMENT = "document"


def embed(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A .txt file with one text per line (the line number is its id), or "
            "anything that 'millpond index' reads; - for JSON lines on stdin.",
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
    trust_remote_code: TrustOption = False,
) -> None:
    """Turn texts into vectors in a Parquet file.

    The columns are id, embedding (a fixed-size list of float32) and text_hash (by which 'millpond
    train' finds a teacher's vector). The schema's metadata holds the fingerprint of the model. The
    file appears whole or not at all.

    \b
    Examples:
      millpond embed sentences.txt --out sentences.parquet
      millpond embed queries.jsonl --out queries.parquet --as query
    """
    from retrieval.texts import Texts

    check_output(out, file)
    texts = Texts(file, skip_bad=skip_bad)
    if file != "-":
        next(iter(texts), None)  # an empty or wholly unreadable file shows before a model loads
    keep_memory()
    encoder = load_encoder(model, device, speed, trust_remote_code=trust_remote_code)
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
    warn_skipped(texts)
    note_untrained(encoder)
