"""DOCX and EPUB by way of HTML; PPTX and ODT from their XML."""

from __future__ import annotations

import io
import posixpath
import warnings
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

__all__ = ["read_docx", "read_epub", "read_odt", "read_pptx"]

_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
"""
_CONTAINER = "META-INF/container.xml"


def read_docx(file: Opened) -> Iterator[FileText]:
    """Yield a Word file; pictures are left out."""
    import mammoth

    with open_zip(file.data) as archive:
        if "word/document.xml" not in archive.namelist():
            raise UnreadableError("it holds no word/document.xml, so it is no Word file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mammoth.convert_to_html(
            io.BytesIO(file.data), style_map=_STYLES, convert_image=lambda _: []
        )
    builder = TextBuilder()
    add_html(builder, found.value)
    yield builder.finish()


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
        tag = one.tag.rpartition("}")[2]
        if tag not in ("h", "p") or one in read:  # a footnote stands in its paragraph
            continue
        read.update(one.iter())
        if tag == "h":
            level = next((v for k, v in one.attrib.items() if k.endswith("}outline-level")), "1")
            builder.heading(int(level), _text_of(one))
        else:
            builder.block(_text_of(one))
    yield builder.finish()


_BLANKS = ("br", "line-break", "tab", "s")


def _text_of(element: Any) -> str:
    """Return the text in an element of PPTX or ODT on one line."""
    for one in element.iter():
        if one.tag.rpartition("}")[2] in _BLANKS:
            one.text = " "
    return " ".join("".join(element.itertext()).split())


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
