"""HTML: the main text with its headings, without navigation, scripts and forms."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from retrieval.corpus.documents.base import FileText, Opened, TextBuilder, words

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_MAIN = ("main", '[role="main"]', "article", "body")
_LEFT_OUT = words(
    "script style noscript template nav footer aside form button select svg iframe head dialog "
    "-comment !doctype object canvas audio video"
)
_BLOCKS = words(
    "address article blockquote body caption center dd details div dl dt fieldset figcaption "
    "figure header hgroup hr html li main ol p pre section summary table tbody tfoot thead tr "
    "ul"
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = ("td", "th")
_BREAKS = {"br": "\n", "td": " ", "th": " ", "wbr": "", "img": " "}


def read_html(file: Opened) -> Iterator[FileText]:
    """Yield an HTML file."""
    builder = TextBuilder()
    title = add_html(builder, file.text(_declared))
    found = builder.finish()
    yield FileText(found.text, found.title or title, found.sections)


def _declared(head: bytes) -> str:
    """Return the encoding that a meta element names, "" if Python knows none of that name."""
    found = _CHARSET.search(head)
    if found is None:
        return ""
    try:
        return codecs.lookup(found[1].decode()).name
    except LookupError:
        return ""


def add_html(builder: TextBuilder, html: str) -> str:
    """Add the main text of a page; return what its title element says."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    title = tree.css_first("title")
    name = " ".join(title.text().split()) if title is not None else ""
    for selector in _MAIN:
        found = tree.css(selector)
        if len(found) == 1:
            _Walk(builder).run(found[0])
            break
    return name


class _Walk:
    """Goes through the elements of a page, however deep they are nested."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._pieces: list[str] = []
        self._level = 0
        self._cells = 0
        self._kept = 0
        """How many elements around here keep their blanks."""

    def run(self, root: LexborNode) -> None:
        """Add the text of an element and of those in it."""
        work: list[tuple[Any, bool]] = [(root, False)]
        while work:
            node, leaving = work.pop()
            tag = node.tag
            if leaving:
                self._leave(tag)
            elif tag == "-text":
                text = node.text_content or ""
                self._pieces.append(text if self._kept else re.sub(r"\s+", " ", text))
            elif tag not in _LEFT_OUT and not _hidden(node):
                self._enter(tag)
                work.append((node, True))
                work.extend((child, False) for child in reversed([*node.iter(include_text=True)]))
        self._flush()

    def _enter(self, tag: str) -> None:
        self._break(tag)
        self._level = _HEADINGS.get(tag, self._level)
        if tag == "li":
            self._pieces.append("- ")
        self._kept += tag == "pre"
        self._cells += tag in _CELLS

    def _leave(self, tag: str) -> None:
        self._pieces.append(_BREAKS.get(tag, ""))
        self._cells -= tag in _CELLS
        self._break(tag)
        if tag in _HEADINGS:
            self._level = 0
        self._kept -= tag == "pre"

    def _break(self, tag: str) -> None:
        """End a block; the blocks in a cell of a table stay on its line."""
        if self._cells and tag in _BLOCKS:
            self._pieces.append(" ")
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._pieces)
        if not self._kept:
            text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
        self._pieces.clear()
        if text.strip(" \n-"):
            if self._level:
                self._builder.heading(self._level, text)
            else:
                self._builder.block(text)


def _hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") in ("navigation", "search", "contentinfo")
    )
