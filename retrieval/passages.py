"""Long documents as passages, whose ids are made from the document's id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from retrieval.types import Document

__all__ = ["Splitter", "passage_id", "read_passages", "split_passage_id"]

Splitter: TypeAlias = Callable[[str], Sequence[str]]
"""Cuts a text into one or more passages, in order."""

MARK = "#"


def passage_id(doc_id: str, number: int) -> str:
    """Return the id of a document's passage; numbers count from 0."""
    return f"{doc_id}{MARK}{number}"


def split_passage_id(stored_id: str) -> tuple[str, int]:
    """Return the document's id and the passage's number.

    Raises
    ------
    ValueError : the id was not made by ``passage_id``.
    """
    doc_id, mark, number = stored_id.rpartition(MARK)
    if not (mark and doc_id):
        raise ValueError(f"{stored_id!r} is not the id of a passage")
    return doc_id, int(number)


def read_passages(documents: Iterable[Document], split: Splitter) -> Iterator[Document]:
    """Yield every passage of every document as a document of its own.

    Passages have the title and metadata of their document and are embedded with the title.
    """
    for document in documents:
        for number, text in enumerate(split(document.text)):
            yield Document(
                passage_id(document.doc_id, number), text, document.title, document.metadata
            )
