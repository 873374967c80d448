"""Vectors kept while they are made, so that a long embedding goes on where it was ended."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from retrieval import Fingerprint, Vectors

__all__ = ["Encode", "Made", "keep_parts"]


Encode = Callable[[Sequence[str]], "Vectors"]
"""Texts to their vectors, float32 (N, D)."""


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
    from retrieval.disk import replace_file
    from retrieval.errors import StorageError
    from retrieval.texts import text_digest

    folder = out.with_name(f"{out.name}.parts")

    def encode_or_read(texts: Sequence[str]) -> Vectors:
        import numpy as np

        name = blake2b(f"{made.fingerprint.digest} {made.role}".encode(), digest_size=16)
        for text in texts:
            name.update(text_digest(text))
        part = folder / f"{name.hexdigest()}.npy"
        kept = _read(part, (len(texts), made.dimension))
        if kept is not None:
            advance(len(texts))
            return kept
        vectors = encode(texts)
        stream = io.BytesIO()
        np.save(stream, vectors, allow_pickle=False)
        try:
            folder.mkdir(exist_ok=True)
            replace_file(part, stream.getvalue())
        except (OSError, StorageError) as error:
            raise StorageError(
                f"{folder}: a part of the vectors cannot be kept ({error}). Free some space, and "
                f"run the command again with --resume: what was embedded before is there."
            ) from error
        return vectors

    yield encode_or_read
    shutil.rmtree(folder, ignore_errors=True)


def _read(part: Path, shape: tuple[int, int]) -> Vectors | None:
    """Return the vectors of a part, None where it is not there or not whole."""
    import numpy as np

    try:
        vectors: Vectors = np.load(part, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors if vectors.shape == shape and vectors.dtype == np.float32 else None
