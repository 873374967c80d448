"""A reranker as the queue of a server takes it: pairs in place of texts, one number for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np

from embedder.serving.served import Role, ServedModel, Tokens
from retrieval.protocols import Floats, Vectors
from retrieval.types import Fingerprint

__all__ = ["PairScorer", "Ranked", "make_pairs", "serve_reranker"]


class PairScorer(Protocol):
    """What a server needs of a reranker; see ``embedder.models.sentence_transformers``."""

    name: str
    max_tokens: int

    def count_tokens(self, query: str, documents: Sequence[str]) -> list[int]:
        """Return the tokens of each pair, before it is cut; called while another thread scores."""
        ...

    def score_pairs(self, pairs: Sequence[tuple[str, str]], lengths: Sequence[int]) -> Floats:
        """Return the model's output for each query and document, of lengths in tokens."""
        ...

    def activate(self, outputs: Floats) -> Floats:
        """Return the scores that the model's activation makes of its output."""
        ...


@dataclass(frozen=True)
class Ranked:
    """The scores of documents, in the order of the request.

    Attributes
    ----------
    outputs : of the model, by which documents are ordered.
    tokens : how many the reranker read.
    truncated : how many documents it did not read to their end.
    """

    model: str
    scores: Floats
    outputs: Floats
    tokens: int
    truncated: int

    def order(self) -> list[tuple[int, float]]:
        """Return place and score of each document, the best first, equal ones as they came."""
        best_first = np.argsort(-self.outputs, kind="stable")
        return [(int(place), float(self.scores[place])) for place in best_first]


@dataclass(frozen=True)
class _Pair:
    """A query and a document, as long as the tokens that are read of them."""

    query: str
    document: str
    tokens: int

    def __len__(self) -> int:
        return self.tokens


class _PairEncoder:
    """Gives each pair a vector of one number: the reranker's output."""

    dimension = 1

    def __init__(self, reranker: PairScorer) -> None:
        self._reranker = reranker
        self.fingerprint = Fingerprint(reranker.name)

    def encode_tokens(self, rows: Sequence[_Pair]) -> Vectors:
        """Return float32 (N, 1)."""
        pairs = [(row.query, row.document) for row in rows]
        return self._reranker.score_pairs(pairs, [row.tokens for row in rows])[:, None]


def serve_reranker(reranker: PairScorer) -> ServedModel:
    """Return the reranker as a model whose rows are those of ``make_pairs``."""

    def refuse(texts: Sequence[str], role: Role) -> NoReturn:
        raise TypeError("a reranker has no rows for texts alone")

    return ServedModel(
        reranker.name, _PairEncoder(reranker), refuse, max_tokens=reranker.max_tokens
    )


def make_pairs(reranker: PairScorer, query: str, documents: Sequence[str]) -> Tokens:
    """Return a row for the query with each document; called from any thread."""
    lengths = reranker.count_tokens(query, documents)
    most = reranker.max_tokens
    rows = [
        _Pair(query, document, min(length, most))
        for document, length in zip(documents, lengths, strict=True)
    ]
    return Tokens(rows, [length > most for length in lengths])
