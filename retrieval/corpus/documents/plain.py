"""Text, Markdown, reStructuredText and Jupyter notebooks: headings as sections."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from retrieval.corpus.documents.base import (
    FileReader,
    FileText,
    Opened,
    TextBuilder,
    UnreadableError,
    outline,
)

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(?P<title>.*?)(?:[ \t]+#+)?[ \t]*")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_FRONT = re.compile(r"---[ \t]*\r?\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.M | re.S)
_FRONT_CHARACTERS = 1 << 16
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*")


def read_text(file: Opened) -> Iterator[FileText]:
    """Yield a text file as it is."""
    yield FileText(file.text())


def read_markdown(file: Opened) -> Iterator[FileText]:
    """Yield a Markdown file without its front matter, which becomes metadata."""
    yield _markdown_text(*_split_front_matter(file.text()))


def _markdown_text(text: str, front: dict[str, Any]) -> FileText:
    """Return Markdown as a document; its title is in ``front`` or its first heading."""
    headings = list(_markdown_headings(text))
    title = front.pop("title", None)
    if not isinstance(title, str) or not title.strip():
        title = next((name for _, _, name in headings), "")
    return FileText(text, title, outline(headings), front)


def read_rst(file: Opened) -> Iterator[FileText]:
    """Yield a reStructuredText file."""
    text = file.text()
    headings = list(_rst_headings(text))
    yield FileText(text, headings[0][2] if headings else "", outline(headings))


def _split_front_matter(text: str) -> tuple[str, dict[str, Any]]:
    """Return a text without the YAML at its beginning, and what that says.

    What stands between two lines of dashes and is no list of names and values is text. A title is
    what was written, be it a number or a date to YAML.

    Raises
    ------
    UnreadableError : it looks like names and values, and cannot be read.
    """
    found = _FRONT.match(text, 0, _FRONT_CHARACTERS)
    if found is None:
        return text, {}
    import yaml

    try:
        data = yaml.safe_load(found["yaml"])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not re.match(r"[\w-]+:(\s|$)", found["yaml"]):
            return text, {}
        mark = getattr(error, "problem_mark", None)
        place = f" on line {mark.line + 2}" if mark is not None else ""
        reason = getattr(error, "problem", None) or error
        raise UnreadableError(f"its front matter is no YAML{place} ({reason})") from None
    if not isinstance(data, dict):
        return text, {}
    front = {str(name): value for name, value in data.items()}
    if not isinstance(front.get("title"), str | None):
        front["title"] = yaml.load(found["yaml"], yaml.BaseLoader).get("title")
    return text[found.end() :], front


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, line.rstrip("\r\n")
        start += len(line)


def _markdown_headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, level and title of each heading."""
    fenced = ""
    previous, previous_start = "", 0
    for start, line in _lines(text):
        fence = _FENCE.match(line)
        if fence:
            fenced = "" if fenced == fence[1] else fenced or fence[1]
        heading = None if fenced or fence else _ATX.fullmatch(line)
        if heading and heading["title"]:
            yield start, len(heading[1]), heading["title"]
        under = _SETEXT.fullmatch(line)
        if under and previous and not fenced:
            yield previous_start, 1 if under[1][0] == "=" else 2, previous
        plain = not (fenced or fence or heading or under)
        previous, previous_start = (line.strip() if plain else ""), start


def _rst_headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start, level and title; an adornment has the level of the order in which it is met."""
    levels: dict[tuple[str, bool], int] = {}
    above, title, title_start = "", "", 0
    for start, line in _lines(text):
        wide = len(line.rstrip()) >= len(title.strip()) > 0
        under = wide and _ADORNMENT.fullmatch(line) and not _ADORNMENT.fullmatch(title)
        if under:
            mark = line[0]
            over = above.rstrip() == line.rstrip()
            level = levels.setdefault((mark, over), len(levels) + 1)
            yield title_start - (len(above) + 1 if over else 0), level, title.strip()
            above, title, title_start = "", "", start
        else:
            above, title, title_start = title, line, start


def read_notebook(file: Opened) -> Iterator[FileText]:
    """Yield the text and code of a notebook of format 4, or 3, without what the code printed."""
    try:
        notebook = json.loads(file.text())
        sheets = notebook.get("worksheets", [notebook])  # format 3
        cells = [cell for sheet in sheets for cell in sheet["cells"]]
        builder = TextBuilder()
        for cell in cells:
            _add_cell(builder, cell)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(
            f"it is no Jupyter notebook ({type(error).__name__}: {error})"
        ) from None
    yield builder.finish()


def _add_cell(builder: TextBuilder, cell: dict[str, Any]) -> None:
    source = cell.get("source", cell.get("input", ""))
    text = source if isinstance(source, str) else "".join(source)
    text = text.strip("\n").rstrip()
    start = builder.block(text)
    if cell["cell_type"] == "markdown":
        for place, level, title in _markdown_headings(text):
            builder.heading(level, title, start=start + place)


def markitdown_reader(converter: str) -> FileReader:
    """Return what reads files as Markdown, by one converter of markitdown.

    That converter is called itself: ``MarkItDown.convert`` takes a damaged file for plain text.
    """

    def read(file: Opened) -> Iterator[FileText]:
        from markitdown import StreamInfo, converters

        info = StreamInfo(extension=file.path.suffix.lower())
        found = getattr(converters, converter)().convert(io.BytesIO(file.data), info)
        yield _markdown_text(found.markdown, {"title": found.title} if found.title else {})

    return read
