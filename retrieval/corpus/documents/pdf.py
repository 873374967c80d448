"""PDF: the text of its pages, with page numbers and the headings of its outline."""

from __future__ import annotations

import io
import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from retrieval.corpus.documents.base import FileText, Opened, Problem, TextBuilder, UnreadableError

if TYPE_CHECKING:
    from pypdf import PdfReader


def read_pdf(file: Opened) -> Iterator[FileText | Problem]:
    """Yield a PDF, and each of its pages that cannot be read."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what is wrong comes as an error
    reader = PdfReader(io.BytesIO(file.data))
    try:
        locked = reader.is_encrypted and not reader.decrypt("")
    except DependencyError:
        raise UnreadableError("it is encrypted; pip install cryptography reads it") from None
    if locked:
        raise UnreadableError("it is encrypted; save it again without a password")
    headings = _find_headings(reader)
    builder = TextBuilder()
    for number, page in enumerate(reader.pages, start=1):
        builder.page(number)
        try:
            text = page.extract_text().replace("\0", "")
        except Exception as error:
            yield Problem(f"page {number} cannot be read ({type(error).__name__}: {error})")
            continue
        start = builder.block(text)
        for level, title in headings[number]:
            place = max(0, text.find(title))
            builder.heading(level, title, start=start + place)
    information = reader.metadata
    title = (information.title if information is not None else None) or ""
    found = builder.finish(str(title).strip())
    if not found.text:
        raise UnreadableError(
            "no page holds text, as where pages are pictures; ocrmypdf IN.pdf OUT.pdf adds it"
        )
    yield found


def _find_headings(reader: PdfReader) -> dict[int, list[tuple[int, str]]]:
    """Return level and title of the entries of the outline, by page; none where it is damaged."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)

    def collect(entries: list[Any], level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                collect(entry, level + 1)
            else:
                page = reader.get_destination_page_number(entry)
                if page is not None and entry.title:
                    found[page + 1].append((level, str(entry.title)))

    try:
        collect(reader.outline, 1)
    except Exception:  # an outline is an aid; the pages are read without it
        found.clear()
    return found
