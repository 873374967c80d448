"""Jupyter notebooks: their text and code, without what the code printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from retrieval.corpus.documents.base import FileText, Opened, TextBuilder, UnreadableError
from retrieval.corpus.documents.plain import markdown_headings

__all__ = ["read_notebook"]


def read_notebook(file: Opened) -> Iterator[FileText]:
    """Yield a notebook of format 4, or 3."""
    try:
        notebook = json.loads(file.text())
        sheets = notebook.get("worksheets", [notebook])  # format 3
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        builder = TextBuilder()
        for cell in cells:
            _add(builder, cell)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(
            f"it is no Jupyter notebook ({type(error).__name__}: {error})"
        ) from None
    yield builder.finish()


def _add(builder: TextBuilder, cell: dict[str, Any]) -> None:
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(source)
    text = text.strip("\n").rstrip()
    start = builder.block(text)
    if cell["cell_type"] == "markdown":
        for place, level, title in markdown_headings(text):
            builder.heading(level, title, start=start + place)
