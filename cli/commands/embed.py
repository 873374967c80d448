"""``millpond embed``: texts become vectors in a Parquet file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import format_seconds, message, progress, warn
from cli.models import ReportingEncoder, keep_memory, load_encoder, note_untrained
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

__all__ = ["Texts", "write_vectors", "Role", "embed"]


class Texts:
    """Ids and texts of any corpus source, or of the lines of a .txt file."""

    def __init__(self, source: str, *, skip_bad: bool) -> None:
        from retrieval import read_corpus

        self._source = source
        self._skip_bad = skip_bad
        self._bad: list[str] = []
        self._lines = Path(source).is_file() and source.lower().endswith((".txt", ".txt.gz"))
        self._corpus = None if self._lines else read_corpus(source, skip_bad=skip_bad)

    @property
    def count_hint(self) -> int | None:
        """The number of texts, if that is cheap to know."""
        return None if self._corpus is None else self._corpus.count_hint

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if self._corpus is None:
            return self._read_lines()
        return ((document.doc_id, document.content) for document in self._corpus)

    def warn_skipped(self) -> None:
        """Warn of the bad records that were skipped, if any."""
        skipped, first = len(self._bad), self._bad[:1]
        if self._corpus is not None:
            skipped, first = self._corpus.skipped, list(self._corpus.first_skipped[:1])
        if skipped:
            warn(f"{skipped:,} bad records were skipped. The first: {first[0]}")

    def _read_lines(self) -> Iterator[tuple[str, str]]:
        """Yield line number and line; an empty line is an empty text."""
        from retrieval.corpus.formats import open_bytes, read_lines
        from retrieval.errors import EmptyCorpusError, RecordError

        self._bad.clear()
        count = 0
        with open_bytes(Path(self._source), self._source) as stream:
            for number, line, problem in read_lines(stream):
                if not problem:
                    count += 1
                    yield str(number), line.rstrip("\r\n")
                elif self._skip_bad:
                    self._bad.append(f"{self._source}:{number}: {problem}")
                else:
                    advice = "Fix it, or pass --skip-bad to count such lines and go on"
                    raise RecordError(self._source, number, f"{problem}. {advice}")
        if count == 0:
            raise EmptyCorpusError(
                f"{self._source}: it holds no text; expected one text per line. Check "
                f"that this is the file you meant."
            )


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
    """Write columns ``id`` and ``embedding`` (fixed-size list of D float32); return the count.

    The schema's metadata holds ``millpond.fingerprint`` (JSON) and ``millpond.role``. Holds 512
    rows in memory; the file appears whole or not at all.

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
        [pa.field("id", pa.string(), nullable=False), pa.field("embedding", kind, nullable=False)],
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
            writer.write_batch(_to_batch([name for name, _ in chunk], vectors, schema))
            count += len(chunk)
    return count


def _to_batch(ids: list[str], vectors: Vectors, schema: Any) -> Any:
    """Return a record batch of ids and vectors (N, D)."""
    import pyarrow as pa

    kind = schema.field("embedding").type
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), type=kind)
    return pa.record_batch([pa.array(ids, pa.string()), lists], schema=schema)


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

    The columns are id and embedding (a fixed-size list of float32). The schema's metadata holds the
    fingerprint of the model. The file appears whole or not at all.

    \b
    Examples:
      millpond embed sentences.txt --out sentences.parquet
      millpond embed queries.jsonl --out queries.parquet --as query
    """
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
    texts.warn_skipped()
    note_untrained(encoder)
