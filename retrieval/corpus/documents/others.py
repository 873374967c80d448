"""Formats that markitdown turns into Markdown: Outlook's mail and feeds."""

from __future__ import annotations

import io
from collections.abc import Iterator

from retrieval.corpus.documents.base import FileReader, FileText, Opened
from retrieval.corpus.documents.plain import markdown_text

__all__ = ["markitdown_reader"]


def markitdown_reader(converter: str) -> FileReader:
    """Return what reads files by one converter of markitdown.

    That converter is called itself: ``MarkItDown.convert`` takes a damaged file for plain text.
    """

    def read(file: Opened) -> Iterator[FileText]:
        from markitdown import StreamInfo, converters

        info = StreamInfo(extension=file.path.suffix.lower())
        found = getattr(converters, converter)().convert(io.BytesIO(file.data), info)
        yield markdown_text(found.markdown, {"title": found.title} if found.title else {})

    return read
