"""DOCX, PPTX and ODT from their XML; EPUB by way of HTML."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

from retrieval.corpus.documents.base import (
    FileText,
    Opened,
    Problem,
    TextBuilder,
    UnreadableError,
    open_zip,
)
from retrieval.corpus.documents.html import add_html

_CONTAINER = "META-INF/container.xml"
_WORD_PARTS = ("word/document.xml", "word/footnotes.xml", "word/endnotes.xml")
_WORD_STYLES = "word/styles.xml"
_WORD_BLOCKS = {"body", "sdt", "sdtContent", "customXml", "ins", "moveTo", "footnote", "endnote"}


def read_docx(file: Opened) -> Iterator[FileText]:
    """Yield a Word file with its headings and notes; pictures and deleted text are left out."""
    builder = TextBuilder()
    with open_zip(file.data) as archive:
        names = archive.namelist()
        if _WORD_PARTS[0] not in names:
            raise UnreadableError(f"it holds no {_WORD_PARTS[0]}, so it is no Word file")
        levels = _heading_levels(archive) if _WORD_STYLES in names else {}
        for part in _WORD_PARTS:
            if part in names:
                _add_blocks(builder, ElementTree.fromstring(archive.read(part)), levels)
    yield builder.finish()


def _heading_levels(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return the level of the styles that are headings, by id, and 0 for those of lists.

    "heading 2" is what Word calls it in any language.
    """
    levels: dict[str, int] = {}
    for style in ElementTree.fromstring(archive.read(_WORD_STYLES)).iterfind("{*}style"):
        name = _value(style.find("{*}name")).lower()
        found = re.fullmatch(r"heading (\d)", name)
        level = 1 if name == "title" else int(found[1]) if found else 0
        based = levels.get(_value(style.find("{*}basedOn")))
        if level or based is not None:
            levels[_value(style, "styleId")] = level or based or 0
        elif style.find("{*}pPr/{*}numPr") is not None:
            levels[_value(style, "styleId")] = 0
    return levels


def _add_blocks(builder: TextBuilder, parent: Any, levels: dict[str, int]) -> None:
    for one in parent:
        tag = _tag(one)
        if tag == "p":
            _add_paragraph(builder, one, levels)
        elif tag == "tbl":
            for row in one.iterfind(".//{*}tr"):
                builder.block(" ".join(map(_text_of, row.iterfind("{*}tc"))))
        elif tag in _WORD_BLOCKS:
            _add_blocks(builder, one, levels)


def _add_paragraph(builder: TextBuilder, paragraph: Any, levels: dict[str, int]) -> None:
    outline = _value(paragraph.find("{*}pPr/{*}outlineLvl"))
    styled = levels.get(_value(paragraph.find("{*}pPr/{*}pStyle")))
    level = int(outline) + 1 if outline.isdecimal() else styled or 0
    text = _text_of(paragraph)
    if 0 < level < 10:
        builder.heading(level, text)
    else:
        item = styled == 0 or paragraph.find("{*}pPr/{*}numPr") is not None
        builder.block(f"- {text}" if item and text else text)


def _value(element: Any, name: str = "val") -> str:
    """Return an attribute of Word's, whatever its namespace is called; "" where there is none."""
    attributes = {} if element is None else element.attrib
    return next((text for key, text in attributes.items() if key.endswith("}" + name)), "")


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def read_epub(file: Opened) -> Iterator[FileText | Problem]:
    """Yield a book, its chapters in their order, and each chapter that cannot be read."""
    builder = TextBuilder()
    with open_zip(file.data) as archive:
        opf = _package_name(archive)
        package = ElementTree.fromstring(archive.read(opf))
        title = next((one.text or "" for one in package.iterfind(".//{*}title")), "")
        for name in _chapters(package):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(opf), unquote(name)))
            try:
                html = archive.read(path).decode("utf-8-sig")
            except (KeyError, zipfile.BadZipFile, UnicodeDecodeError) as error:
                yield Problem(f"the chapter {path} cannot be read ({error})")
                continue
            add_html(builder, html)
    yield builder.finish(" ".join(title.split()))


def read_pptx(file: Opened) -> Iterator[FileText | Problem]:
    """Yield a presentation: its slides are pages, their titles headings; notes are left out."""
    builder = TextBuilder()
    with open_zip(file.data) as archive:
        for number, path in enumerate(_slides(archive), start=1):
            builder.page(number)
            try:
                slide = ElementTree.fromstring(archive.read(path))
            except (KeyError, zipfile.BadZipFile, ElementTree.ParseError) as error:
                yield Problem(f"slide {number} cannot be read ({error})")
                continue
            for shape in slide.iterfind(".//{*}sp"):
                kind = shape.find("{*}nvSpPr/{*}nvPr/{*}ph")
                lines = [_text_of(one) for one in shape.iterfind("{*}txBody/{*}p")]
                if kind is not None and kind.get("type") in ("title", "ctrTitle"):
                    builder.heading(1, " ".join(lines))
                elif kind is None or kind.get("type") not in ("sldNum", "dt", "ftr"):
                    builder.block("\n".join(lines))
            for row in slide.iterfind(".//{*}tbl/{*}tr"):
                cells = [_text_of(cell) for cell in row.iterfind("{*}tc")]
                builder.block(" ".join(cells))
    yield builder.finish()


def _slides(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the slides in the order in which they are shown."""
    top = "ppt/"
    try:
        shown = ElementTree.fromstring(archive.read(f"{top}presentation.xml"))
        links = ElementTree.fromstring(archive.read(f"{top}_rels/presentation.xml.rels"))
    except KeyError as error:
        raise UnreadableError(f"it is no presentation ({error.args[0]})") from None
    targets = {one.get("Id"): one.get("Target", "") for one in links}
    ids = [
        value
        for slide in shown.iterfind("{*}sldIdLst/{*}sldId")
        for name, value in slide.attrib.items()
        if name.endswith("}id")
    ]
    joined = [posixpath.normpath(posixpath.join(top, targets.get(one, ""))) for one in ids]
    return [name.lstrip("/") if name.startswith("/") else name for name in joined]


def read_odt(file: Opened) -> Iterator[FileText]:
    """Yield a text of OpenDocument with its headings."""
    builder = TextBuilder()
    with open_zip(file.data) as archive:
        try:
            content = ElementTree.fromstring(archive.read("content.xml"))
        except KeyError:
            raise UnreadableError("it holds no content.xml, so it is no OpenDocument") from None
    body = content.find("{*}body/{*}text")
    if body is None:
        raise UnreadableError("it holds no text, as a drawing or a presentation of OpenDocument")
    for changes in body.findall("{*}tracked-changes"):
        body.remove(changes)
    read: set[Any] = set()
    for one in body.iter():
        tag = _tag(one)
        if tag not in ("h", "p") or one in read:  # a footnote stands in its paragraph
            continue
        read.update(one.iter())
        if tag == "h":
            level = next((v for k, v in one.attrib.items() if k.endswith("}outline-level")), "1")
            builder.heading(int(level), _text_of(one, mixed=True))
        else:
            builder.block(_text_of(one, mixed=True))
    yield builder.finish()


_BLANKS = {"br", "cr", "tab", "ptab", "line-break", "s"}
_REPEATED = {"Fallback", "moveFrom", "delText", "instrText", "pPr"}
"""What stands in a Word file a second time, or is no text that is shown."""


def _text_of(element: Any, *, mixed: bool = False) -> str:
    """Return the text in an element of DOCX or PPTX on one line, or of ODT where it is ``mixed``.

    The former keep what is shown in elements called t alone.
    """
    parts: list[str] = []
    work = [(element, "")]
    while work:
        one, tail = work.pop()
        if one is None:
            parts.append(tail)
            continue
        tag = _tag(one)
        work.append((None, tail if mixed else ""))
        if tag in _BLANKS:
            parts.append(" ")
        elif tag == "noBreakHyphen":
            parts.append("-")
        elif tag not in _REPEATED:
            parts.append(" " * (tag == "p") + ((one.text or "") if mixed or tag == "t" else ""))
            work.extend((child, child.tail or "") for child in reversed(one))
    return " ".join("".join(parts).split())


def _package_name(archive: zipfile.ZipFile) -> str:
    try:
        container = ElementTree.fromstring(archive.read(_CONTAINER))
        return next(one.attrib["full-path"] for one in container.iterfind(".//{*}rootfile"))
    except (KeyError, StopIteration, ElementTree.ParseError):
        raise UnreadableError(f"its {_CONTAINER} does not lead to a book") from None


def _chapters(package: Any) -> Iterator[str]:
    """Yield the names of the chapters, without the table of contents."""
    items = {one.get("id"): one for one in package.iterfind(".//{*}manifest/{*}item")}
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or "html" not in (item.get("media-type") or ""):
            continue
        if "nav" not in (item.get("properties") or "").split():
            yield item.get("href") or ""
