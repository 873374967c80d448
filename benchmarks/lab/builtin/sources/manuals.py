"""HTML manuals that Debian ships: headings and signatures to the text under them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.lab.builtin.pairs import Pair, first_and_rest, squeeze
from benchmarks.lab.builtin.sources.apt import Workplace

SHORTEST_BODY_CHARS = 80

_FORMULA = "\0"
"""Stands for a formula; a sentence that leans on one says nothing in words, so its block goes."""

_VOID = {"br", "img", "meta", "link", "hr", "input", "col", "area", "base", "wbr", "source"}
_BLOCKS = {"p", "li", "dt", "dd", "div", "section", "h1", "h2", "h3", "h4", "h5", "h6", "body"}
_SKIPPED_TAGS = {"head", "script", "style", "pre", "table", "nav", "footer", "form", "sup"}
_SKIPPED_CLASSES = {
    *("headerlink", "viewcode-link", "sphinxsidebar", "related", "footer", "navheader"),
    *("navfooter", "toc", "toctree-wrapper", "contents", "field-list", "highlight"),
    *(
        "sphx-glr-thumbcontainer",
        "sphx-glr-footer",
        "sphx-glr-timing",
        "sphx-glr-signature",
        "prev-next-area",
        "versionmodified",
        "sk-page-content-header",
    ),
    *("sk-sidebar-wrapper", "admonition-title", "deprecated", "versionchanged", "versionadded"),
}
_SKIPPED_PAGES = re.compile(
    r"genindex|search|modindex|changelog|license|copyright|/bugs|/release|_modules|_sources|"
    r"bookindex|whats_new|whatsnew/|acknowledg|/about|errcodes|distutils/apiref"
)


@dataclass(frozen=True)
class Block:
    """A run of text: ``kind`` is heading, signature or text."""

    kind: str
    text: str


@dataclass
class Section:
    """A heading or a signature, and the texts up to the next one."""

    block: Block
    texts: list[str] = field(default_factory=list)

    @property
    def body(self) -> str:
        """All texts in one line."""
        return " ".join(self.texts)


class _BlockParser(HTMLParser):
    """Collects headings, signatures and prose; code, tables and navigation are left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._open: list[tuple[str, bool]] = []
        self._held: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a tag; a skipped one silences all inside."""
        classes = set((dict(attrs).get("class") or "").split())
        if tag in _BLOCKS:
            self._flush()
        if classes & {"math", "MathJax"}:
            self._held.append(_FORMULA)
        if tag in _VOID:
            self._held.append(" ")
            return
        skip = tag in _SKIPPED_TAGS or bool(classes & _SKIPPED_CLASSES)
        self._open.append((tag, skip or (bool(self._open) and self._open[-1][1])))

    def handle_endtag(self, tag: str) -> None:
        """Close the tag and what was left open inside it."""
        if tag in _BLOCKS:
            self._flush()
        if any(name == tag for name, _ in self._open):
            while self._open.pop()[0] != tag:
                continue

    def handle_data(self, data: str) -> None:
        """Hold text until its block ends."""
        if not (self._open and self._open[-1][1]):
            self._held.append(data)

    def _flush(self) -> None:
        """Turn the held text into a block of the innermost block tag's kind."""
        text = re.sub("¶|\\[source\\]| ?\\[\\d+\\]_?", "", squeeze("".join(self._held))).strip()
        self._held = []
        if text and _FORMULA not in text:
            tags = [name for name, _ in self._open if name in _BLOCKS] or ["p"]
            headings = {f"h{level}": "heading" for level in range(1, 7)}
            self.blocks.append(Block({**headings, "dt": "signature"}.get(tags[-1], "text"), text))


def parse_blocks(html: str) -> list[Block]:
    """Headings, signatures and prose of one page, in order."""
    parser = _BlockParser()
    parser.feed(html)
    parser.close()
    return parser.blocks


def split_sections(blocks: list[Block]) -> list[Section]:
    """Each heading or signature with the texts that follow it."""
    sections: list[Section] = []
    for block in blocks:
        if block.kind != "text":
            sections.append(Section(block))
        elif sections:
            sections[-1].texts.append(block.text)
    return sections


def tidy_heading(heading: str) -> str:
    """A heading without its number and its dash."""
    bare = re.sub(r"^(?:(?:Chapter|Appendix|Part)\s+)?(?:[A-Z0-9]+\.)+(?:\d+\.?)*\s+", "", heading)
    return re.sub(r"\s+[\u2014\u2013]\s+", ": ", bare).strip()


def tidy_signature(signature: str) -> str:
    """A signature without its keyword and without defaults, at most 120 characters."""
    bare = re.sub(r"^(?:class|async|classmethod|static|abstract|property)\s+", "", signature)
    bare = re.sub(r"\s*=\s*[^,()]+|\s*→.*$", "", bare)
    return bare if len(bare) <= 120 else bare.split("(")[0]


def page_pairs(blocks: list[Block]) -> Iterator[Pair]:
    """Title and heading -> section, signature -> description, first sentence -> rest."""
    sections = split_sections(blocks)
    headings = [section.block.text for section in sections if section.block.kind == "heading"]
    title = tidy_heading(headings[0]) if headings else ""
    for section in sections:
        if len(section.body) < SHORTEST_BODY_CHARS:
            continue
        if section.block.kind == "signature":
            name = tidy_signature(section.block.text)
            told = re.search(r"[.(]", name) or not title
            yield Pair(name if told else f"{title}: {name}", section.body)
            continue
        heading = tidy_heading(section.block.text)
        yield Pair(heading if heading == title else f"{title}: {heading}", section.body)
        yield from first_and_rest(section.body)


def read_manual(workplace: Workplace, package: str, folder: str) -> Iterator[Pair]:
    """Pairs of every page under ``folder`` of a Debian package."""
    root = workplace.unpack(package) / folder
    for path in sorted(root.rglob("*.html")):
        if not _SKIPPED_PAGES.search(str(path.relative_to(root.parent))):
            yield from page_pairs(parse_blocks(_read_page(path)))


def _read_page(path: Path) -> str:
    """The page's text; a stray byte must not end the build."""
    return path.read_text(encoding="utf-8", errors="replace")
