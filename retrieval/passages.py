"""Long documents as passages, whose ids are made from the document's id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from retrieval.types import Document, Passage

__all__ = [
    "Splitter",
    "passage_id",
    "plain_passage_id",
    "read_passage",
    "read_passages",
    "split_passage_id",
]

Splitter: TypeAlias = Callable[[str], Sequence[str]]
"""Cuts a text into one or more passages, in order."""

MARK, AT = "#", "@"


def passage_id(doc_id: str, number: int, start: int | None = None) -> str:
    """Return the id of a document's passage.

    Numbers count from 0; ``start`` is its first character, if that is known.
    """
    return f"{doc_id}{MARK}{number}" + ("" if start is None else f"{AT}{start}")


def plain_passage_id(stored_id: str) -> str:
    """Return the id of a passage without its start, which earlier versions did not store."""
    head, at, start = stored_id.rpartition(AT)
    return head if at and start.isdigit() and MARK in head else stored_id


def read_passage(stored_id: str, text: str) -> Passage:
    """Return which part of its document a passage is.

    Raises
    ------
    ValueError : the id was not made by ``passage_id``.
    """
    plain = plain_passage_id(stored_id)
    _, number = split_passage_id(plain)
    if plain == stored_id:
        return Passage(number)
    start = int(stored_id.rpartition(AT)[2])
    return Passage(number, start, start + len(text))


def split_passage_id(stored_id: str) -> tuple[str, int]:
    """Return the document's id and the passage's number.

    Raises
    ------
    ValueError : the id was not made by ``passage_id``.
    """
    doc_id, mark, number = plain_passage_id(stored_id).rpartition(MARK)
    if not (mark and doc_id):
        raise ValueError(f"{stored_id!r} is not the id of a passage")
    return doc_id, int(number)


def read_passages(documents: Iterable[Document], split: Splitter) -> Iterator[Document]:
    """Yield every passage of every document as a document of its own.

    Passages have the title and metadata of their document and are embedded with the title.
    """
    for document in documents:
        for number, (start, text) in enumerate(_places(document.text, split)):
            name = passage_id(document.doc_id, number, start)
            yield Document(name, text, document.title, document.metadata)


def _places(text: str, split: Splitter) -> Iterator[tuple[int | None, str]]:
    """Yield each passage and where it starts, None where a splitter changes the text."""
    spans = getattr(split, "spans", None)
    if spans is not None:
        yield from ((start, text[start:stop]) for start, stop in spans(text))
        return
    least = 0
    for passage in split(text):
        found = text.find(passage, least)
        least = max(least, found + len(passage[:1]))
        yield (found if found >= 0 else None), passage
