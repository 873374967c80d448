"""Files of vectors: Parquet, NumPy, CSV and JSON lines, as the ending of a name says.

What is embedded can be kept while they are made, so that a long run goes on where it was ended.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.output import atomic_output, is_special
from retrieval.errors import StorageError, UsageError

if TYPE_CHECKING:
    from retrieval import Fingerprint, Vectors

Rows = Sequence[tuple[str, str]]
"""Ids and texts."""
Write = Callable[[Rows, "Vectors"], None]
"""Adds rows with their vectors (N, D) to a file."""

Encode = Callable[[Sequence[str]], "Vectors"]
"""Texts to their vectors, float32 (N, D)."""

_ROWS_AT_A_TIME = 512


def output_files(out: Path) -> tuple[Path, ...]:
    """Return the files that ``write_vectors`` writes.

    Raises
    ------
    UsageError : the name has another ending.
    """
    ending = out.suffix.lower()
    if ending not in _WRITERS and not is_special(out):
        arrived = f"ends in {ending!r}" if ending else "has no ending"
        raise UsageError(f"{out}: the name {arrived}; expected {ENDINGS}.")
    return (out, out.with_suffix(".ids.txt")) if ending == ".npy" else (out,)


def write_vectors(
    rows: Iterable[tuple[str, str]],
    encode: Encode,
    out: Path,
    made: Made,
) -> int:
    """Write the vectors of texts in the format that the name's ending says; return the count.

    Holds 512 rows in memory; a file appears whole or not at all. A pipe or a device whose name has
    no ending gets Parquet.

    - .parquet: columns ``id``, ``embedding`` (a fixed-size list of D float32) and ``text_hash`` (16
      bytes that tell the text, by which ``[teacher] vectors`` of a training config finds its
      vector); the schema's metadata holds ``millpond.fingerprint`` (JSON) and ``millpond.role``.
    - .npy: the matrix (N, D) float32; the ids stand beside it in NAME.ids.txt, one a line.
    - .csv: a header, then the id and D numbers a line.
    - .jsonl: an object with ``id`` and ``embedding`` a line.

    Parameters
    ----------
    rows : id and text.
    encode : texts to float32 (N, D).

    Raises
    ------
    UsageError : the name has another ending.
    StorageError : a file cannot be written.
    """
    metadata = {
        "millpond.fingerprint": json.dumps(made.fingerprint.to_json()),
        "millpond.role": made.role,
    }
    count = 0
    stream = iter(rows)
    with ExitStack() as stack:
        # The last one entered is put in place first: the ids are there when the matrix is.
        beside = [stack.enter_context(atomic_output(path)) for path in output_files(out)]
        writer = _WRITERS.get(out.suffix.lower(), _parquet)
        write = stack.enter_context(writer(beside, made.dimension, metadata))
        while chunk := list(islice(stream, _ROWS_AT_A_TIME)):
            write(chunk, encode([text for _, text in chunk]))
            count += len(chunk)
    return count


@contextmanager
def _parquet(files: Sequence[Path], dimension: int, metadata: dict[str, str]) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), dimension)
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("embedding", kind, nullable=False),
            pa.field("text_hash", pa.binary(16), nullable=False),
        ],
        metadata=metadata,
    )
    with pq.ParquetWriter(files[0], schema) as writer:
        yield lambda rows, vectors: writer.write_batch(_to_batch(rows, vectors, schema))


def _to_batch(rows: Rows, vectors: Vectors, schema: Any) -> Any:
    """Return a record batch of ids and texts with their vectors (N, D)."""
    import pyarrow as pa

    from retrieval.texts import text_digest

    kind = schema.field("embedding").type
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), type=kind)
    ids = pa.array([name for name, _ in rows], pa.string())
    digests = pa.array([text_digest(text) for _, text in rows], pa.binary(16))
    return pa.record_batch([ids, lists, digests], schema=schema)


@contextmanager
def _npy(files: Sequence[Path], dimension: int, metadata: dict[str, str]) -> Iterator[Write]:
    import numpy as np

    count = 0

    def header(stream: Any) -> None:
        # NumPy leaves room in a header for more rows, so its length does not depend on them.
        form = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
        np.lib.format.write_array_header_1_0(stream, form)

    with files[0].open("wb") as matrix, _open_text(files[1]) as ids:
        header(matrix)

        def write(rows: Rows, vectors: Vectors) -> None:
            nonlocal count
            matrix.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            ids.writelines(f"{identifier}\n" for identifier, _ in rows)
            count += len(rows)

        yield write
        matrix.seek(0)
        header(matrix)


@contextmanager
def _csv(files: Sequence[Path], dimension: int, metadata: dict[str, str]) -> Iterator[Write]:
    with _open_text(files[0]) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["id", *(f"v{place}" for place in range(dimension))])
        yield lambda rows, vectors: writer.writerows(
            [identifier, *numbers]
            for (identifier, _), numbers in zip(rows, _numbers(vectors), strict=True)
        )


@contextmanager
def _jsonl(files: Sequence[Path], dimension: int, metadata: dict[str, str]) -> Iterator[Write]:
    with _open_text(files[0]) as stream:
        yield lambda rows, vectors: stream.writelines(
            json.dumps({"id": identifier, "embedding": numbers}, ensure_ascii=False) + "\n"
            for (identifier, _), numbers in zip(rows, _numbers(vectors), strict=True)
        )


def _open_text(path: Path) -> Any:
    return path.open("w", encoding="utf-8", newline="")


def _numbers(vectors: Vectors) -> Iterator[list[float]]:
    """Yield the numbers of each vector with nine digits, which tell every float32 exactly."""
    for vector in vectors:
        yield [float(f"{number:.9g}") for number in vector.tolist()]


_WRITERS = {".parquet": _parquet, ".npy": _npy, ".csv": _csv, ".jsonl": _jsonl}
ENDINGS = ".parquet, .npy, .csv or .jsonl"


class Made(NamedTuple):
    """What vectors are: their length D, the model that makes them, "query" or "document"."""

    dimension: int
    fingerprint: Fingerprint
    role: str


@contextmanager
def keep_parts(
    out: Path,
    encode: Encode,
    made: Made,
    advance: Callable[[int], None],
) -> Iterator[Encode]:
    """Give an ``encode`` that keeps what each call returned in ``OUT.parts``, and reads it there.

    A part is named by model, role and texts, so one of other texts is never taken for these. The
    folder is deleted when the block succeeds.

    Parameters
    ----------
    made : what the vectors are.
    advance : called with the number of texts that were read instead of embedded.

    Raises
    ------
    StorageError : a part cannot be written; those before it are kept.
    """
    from retrieval.disk import keep_vectors, read_kept_vectors
    from retrieval.texts import text_digest

    folder = out.with_name(f"{out.name}.parts")

    def encode_or_read(texts: Sequence[str]) -> Vectors:
        name = blake2b(f"{made.fingerprint.digest} {made.role}".encode(), digest_size=16)
        for text in texts:
            name.update(text_digest(text))
        part = folder / f"{name.hexdigest()}.npy"
        kept = read_kept_vectors(part, (len(texts), made.dimension))
        if kept is not None:
            advance(len(texts))
            return kept
        vectors = encode(texts)
        try:
            folder.mkdir(exist_ok=True)
            keep_vectors(part, vectors)
        except (OSError, StorageError) as error:
            raise StorageError(
                f"{folder}: a part of the vectors cannot be kept ({error}). Free some space, and "
                f"run the command again with --resume: what was embedded before is there."
            ) from error
        return vectors

    yield encode_or_read
    shutil.rmtree(folder, ignore_errors=True)
