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

    A hit's score is the reranker's, and ``first_stage`` what the search gave it. They are ordered
    by the model's output, since an activation rounds large ones to 1; equal outputs stay in the
    order of the search. The hits need their texts.
    """
    outputs = reranker.score(text, [f"{hit.title} {hit.text}".strip() for hit in hits])
    scores = reranker.activate(outputs)
    order = sorted(range(len(hits)), key=lambda place: (-float(outputs[place]), place))[:k]
    return [
        replace(
            hits[place],
            rank=rank,
            score=float(scores[place]),
            first_stage=ArmScore(hits[place].score, hits[place].rank),
        )
        for rank, place in enumerate(order, start=1)
    ]
