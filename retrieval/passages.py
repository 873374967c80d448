"""Long documents as passages, whose ids are made from the document's id."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from retrieval.types import Document, MetadataValue, Passage

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

    Passages have the title and metadata of their document and are embedded with the title. None
    goes on beyond a heading; the headings above it and its page are in ``heading`` and ``page``.
    """
    for document in documents:
        number = 0
        for first, stop, heading in _blocks(document):
            for start, text in _places(document.text[first:stop], split):
                place = None if start is None else first + start
                name = passage_id(document.doc_id, number, place)
                own = _where(document, heading, first if place is None else place)
                metadata = {**document.metadata, **own} if own else document.metadata
                yield Document(name, text, document.title, metadata)
                number += 1


_LONGEST_HEADINGS = 1000


def _blocks(document: Document) -> Iterator[tuple[int, int, str]]:
    """Yield where the parts of a text start and stop that have the same headings, and those.

    A heading without a text of its own stands with what follows.
    """
    text, start, heading, titles = document.text, 0, "", ""
    for section in document.sections:
        if section.heading == heading:
            continue
        if not text[section.start :].strip():
            break
        deeper = section.heading.startswith(f"{heading} > " if heading else "")
        before = _letters(text[start : section.start])
        if not before:
            titles = ""
        elif before != titles or not deeper:
            yield start, section.start, heading
            start, titles = section.start, ""
        heading = section.heading
        titles += _letters(heading.rpartition(" > ")[2])
    yield start, len(text), heading


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text[:_LONGEST_HEADINGS]))


def _where(document: Document, heading: str, place: int) -> dict[str, MetadataValue]:
    """Return the headings of a passage and the page of its beginning, as far as there are any."""
    found: dict[str, MetadataValue] = {"heading": heading} if heading else {}
    after = bisect_right(document.sections, place, key=lambda section: section.start)
    page = document.sections[after - 1].page if after else None
    return found if page is None else {**found, "page": page}


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
