"""A reranker as the queue of a server takes it: pairs in place of texts, one number for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from embedder.models.sentence_transformers import Reranker
from embedder.serving.served import Role, Row, RowEncoder, ServedModel, Tokens
from retrieval.protocols import Floats, Vectors
from retrieval.types import Fingerprint


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


def serve_reranker(reranker: Reranker) -> ServedModel:
    """Return the reranker as a model whose rows are those of ``make_pairs``, a number for each."""

    def refuse(texts: Sequence[str], role: Role) -> NoReturn:
        raise TypeError("a reranker has no rows for texts alone")

    def score(rows: Sequence[Row]) -> Vectors:
        return reranker.score_pairs([row.content for row in rows], list(map(len, rows)))[:, None]

    encoder = RowEncoder(1, Fingerprint(reranker.name), score)
    return ServedModel(reranker.name, encoder, refuse, max_tokens=reranker.max_tokens)


def make_pairs(reranker: Reranker, query: str, documents: Sequence[str]) -> Tokens:
    """Return a row for the query with each document; called from any thread."""
    lengths = reranker.count_tokens(query, documents)
    most = reranker.max_tokens
    rows = [
        Row((query, document), min(length, most))
        for document, length in zip(documents, lengths, strict=True)
    ]
    return Tokens(rows, [length > most for length in lengths])
