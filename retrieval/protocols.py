"""The two seams of the pipeline: what turns text into vectors, and what finds neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.filters.tree import Expression
from retrieval.types import Fingerprint, Hit, Mode

Vectors: TypeAlias = npt.NDArray[np.float32]
"""Float32, shape (N, D), one row per text."""

Floats: TypeAlias = npt.NDArray[np.float32]
"""Float32 of any shape."""

Rows: TypeAlias = npt.NDArray[np.int64]
"""Row numbers of an index, int64, counted from 0."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""One bool per row or token, True for those that count."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of items finished since the last call."""

Notify: TypeAlias = Callable[[str], None]
"""Called with one line for the user."""


def no_progress(count: int) -> None:
    """Ignore progress."""


def silent(line: str) -> None:
    """Ignore a line for the user."""


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors."""

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors; see ``Fingerprint``."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        ...


def check_encoder(encoder: object) -> None:
    """Raise UsageError for what cannot turn texts into vectors, such as the name of a model."""
    if not hasattr(encoder, "fingerprint"):
        named = repr(encoder) if isinstance(encoder, str) else "'millpond-135m'"
        raise UsageError(
            f"The encoder is of type {type(encoder).__name__}; expected a model, such as "
            f"millpond.Embedder.load({named})."
        )


class Reranker(Protocol):
    """Scores documents for a query that it reads together with each of them."""

    @property
    def name(self) -> str:
        """What a user types to load it."""
        ...

    @property
    def max_tokens(self) -> int:
        """How many tokens of a query and document together it reads."""
        ...

    def score(self, query: str, documents: Sequence[str]) -> Floats:
        """Return one number per document, float32 (N,), by which they are ordered."""
        ...

    def activate(self, outputs: Floats) -> Floats:
        """Return the scores to show for these numbers; higher ones may become equal."""
        ...

    def take_cut(self) -> int:
        """Return how many documents were not read to their end since the last call."""
        ...


@runtime_checkable
class VectorIndex(Protocol):
    """Finds the nearest stored vectors; ``indexes.Index`` is one."""

    @property
    def dimension(self) -> int:
        """D, the length of every stored vector."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder that made the stored vectors."""
        ...

    def __len__(self) -> int:
        """Return how many documents are stored."""
        ...

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of ``search`` that it offers, the default one first."""
        ...

    def search(
        self,
        queries: Vectors | list[str],
        k: int,
        *,
        with_text: bool = True,
        where: Expression | str | None = None,
        texts: Sequence[str] | None = None,
        mode: str | None = None,
        fusion: str = "convex",
        weight: float | None = None,
        distinct: bool = False,
    ) -> list[list[Hit]]:
        """Return, for each query, at most k hits, best first.

        Equal scores are ordered by document id. With ``with_text=False`` hits carry ids and
        scores only. ``where`` is a filter on metadata, as text or as ``parse_filter`` reads it.
        ``queries`` are vectors (Q, D), and ``texts`` what they were made from; or, in mode
        "lexical", texts. ``mode``, ``fusion``, ``weight`` and ``distinct`` are those of ``Blend``.
        """
        ...
