"""Reranking: the best hits of a search are read again, each together with the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrieval.protocols import Reranker
from retrieval.types import ArmScore, Hit

__all__ = ["CANDIDATES", "rerank"]

CANDIDATES = 50
"""How many hits of a search are read again."""


def rerank(reranker: Reranker, text: str, hits: Sequence[Hit], k: int) -> list[Hit]:
    """Return the k hits that a reranker scores highest, best first.

    A hit's score is the reranker's, and ``first_stage`` what the search gave it. Equal scores stay
    in the order of the search. The hits need their texts.
    """
    scores = reranker.score(text, [f"{hit.title} {hit.text}".strip() for hit in hits])
    order = sorted(range(len(hits)), key=lambda place: (-float(scores[place]), place))[:k]
    return [
        replace(
            hits[place],
            rank=rank,
            score=float(scores[place]),
            first_stage=ArmScore(hits[place].score, hits[place].rank),
        )
        for rank, place in enumerate(order, start=1)
    ]
