"""DOCX and EPUB, by way of HTML."""

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

__all__ = ["read_docx", "read_epub"]

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
