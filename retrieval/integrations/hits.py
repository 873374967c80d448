"""What the frameworks share: one search at a time, and what a hit says of itself."""

from __future__ import annotations

from threading import Lock
from typing import Any

from retrieval.retriever import Retriever
from retrieval.types import Hit

_LOCK = Lock()
"""Frameworks call from several threads, and a model computes for one."""


def find(
    retriever: Retriever, query: str, k: int, where: str | None, mode: str | None, distinct: bool
) -> list[Hit]:
    """Return the hits of a query; see ``Retriever.search``."""
    with _LOCK:
        return retriever.search(query, k, where=where or None, mode=mode or None, distinct=distinct)


def describe(hit: Hit) -> dict[str, Any]:
    """Return the metadata of a hit with its doc_id, title, score and, of a passage, its place."""
    own: dict[str, Any] = {"doc_id": hit.doc_id, "title": hit.title, "score": hit.score}
    if hit.passage is not None:
        own |= {"start": hit.passage.start, "stop": hit.passage.stop}
    if hit.index:
        own["index"] = hit.index
    return {**hit.metadata, **own}
