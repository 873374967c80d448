"""Embeddings in a Parquet file: one column of ids, one of fixed-size lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli._output import atomic_output

if TYPE_CHECKING:
    from retrieval import Fingerprint, Vectors

__all__ = ["write_vectors"]

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
