"""The nouns of the pipeline: documents, queries and hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Document", "Hit", "Query", "Scalar"]

Scalar = str | int | float | bool | None
"""The type of one metadata value."""


@dataclass(frozen=True, slots=True)
class Document:
    """One unit of a corpus.

    Attributes
    ----------
    doc_id : unique within its corpus, never empty.
    text : the body; may be empty.
    title : may be empty.
    metadata : every further column of the source, by name.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What is embedded: title and text, one blank apart (the BEIR convention)."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """One question, with an id that is unique within its file."""

    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    Attributes
    ----------
    rank : 1 for the best hit.
    score : higher is better; the inner product of unit vectors (cosine) unless the index's
        manifest names another metric.
    title, text, metadata : of the stored document; empty if texts were not requested.
    """

    rank: int
    doc_id: str
    score: float
    title: str = ""
    text: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
