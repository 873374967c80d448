"""What a server offers: models and indexes, each with what the protocols do not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from retrieval.filters import Expression
from retrieval.fingerprint import check_fingerprints
from retrieval.protocols import Encoder, VectorIndex, Vectors
from retrieval.types import Hit

__all__ = ["Role", "ServedIndex", "ServedModel"]

Role: TypeAlias = Literal["query", "document"]
"""Which of the model's two prompts goes with a text."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """An encoder, and how its texts are measured.

    Attributes
    ----------
    name : what clients type in ``model``.
    encoder : computes the vectors.
    count_tokens : returns, for each text, how many tokens the model sees, prompts included; for
        a text that is too long, any number above ``max_tokens``.
    max_tokens : longest text.
    decode : turns token ids of the model into text; None where the model takes text only.
    dimensions : shorter lengths that the model was trained for (Matryoshka, arXiv 2205.13147).
    normalized : whether vectors have length 1.
    details : further facts for ``/info``.
    """

    name: str
    encoder: Encoder
    count_tokens: Callable[[Sequence[str], Role], list[int]]
    max_tokens: int
    decode: Callable[[Sequence[int]], str] | None = None
    dimensions: tuple[int, ...] = ()
    normalized: bool = True
    details: Mapping[str, str] = field(default_factory=dict)

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        """Return float32 (N, D), one row a text, with the prompt of the role."""
        if role == "query":
            return self.encoder.encode_queries(texts)
        return self.encoder.encode_documents(texts)


@dataclass(frozen=True, eq=False)
class ServedIndex:
    """An index and the model that its queries go through.

    Attributes
    ----------
    name : what clients type in ``index``.
    fields : the metadata fields that a filter can name, with their types in words.

    Raises
    ------
    FingerprintError : another model made the index.
    """

    name: str
    index: VectorIndex
    model: ServedModel
    fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an index whose vectors the model cannot be compared with."""
        mine, theirs = self.index.fingerprint, self.model.encoder.fingerprint
        check_fingerprints(mine, theirs, where=self.name)

    def search(self, vectors: Vectors, k: int, where: Expression | None) -> list[list[Hit]]:
        """Return at most k hits for each row of ``vectors`` (Q, D), best first."""
        return self.index.search(vectors, k, where=where)
