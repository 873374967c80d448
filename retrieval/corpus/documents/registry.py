"""The formats of files that are documents, by ending, and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from retrieval.corpus.documents.base import FileReader
from retrieval.corpus.documents.code import code_reader
from retrieval.corpus.documents.html import read_html
from retrieval.corpus.documents.mail import read_eml, read_mbox
from retrieval.corpus.documents.notebook import read_notebook
from retrieval.corpus.documents.office import read_docx, read_epub, read_odt, read_pptx
from retrieval.corpus.documents.others import markitdown_reader
from retrieval.corpus.documents.pdf import read_pdf
from retrieval.corpus.documents.plain import read_markdown, read_rst, read_text

__all__ = ["EXTRA", "FORMATS", "FileFormat", "available", "find_format", "lacking"]

EXTRA = "pip install 'millpond[documents]'"


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of files that are documents.

    Attributes
    ----------
    name : as messages call it.
    read : see ``FileReader``.
    needs : the modules that have to be installed.
    is_code : whether it is source code, which describes data more often than it is some.
    """

    name: str
    read: FileReader
    needs: tuple[str, ...] = ()
    is_code: bool = False


def _code(name: str, module: str, function: str = "language") -> FileFormat:
    module = f"tree_sitter_{module}"
    return FileFormat(name, code_reader(module, function), ("tree_sitter", module), is_code=True)


_HTML = FileFormat("HTML", read_html, ("selectolax",))
_FEED = FileFormat("feed", markitdown_reader("RssConverter"), ("markitdown",))
_TYPESCRIPT = _code("TypeScript", "typescript", "language_typescript")
_CPP, _C = _code("C++", "cpp"), _code("C", "c")
_JAVASCRIPT = _code("JavaScript", "javascript")

FORMATS: Mapping[str, FileFormat] = {
    ".txt": FileFormat("text", read_text),
    ".md": FileFormat("Markdown", read_markdown),
    ".rst": FileFormat("reStructuredText", read_rst),
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".pdf": FileFormat("PDF", read_pdf, ("pypdf",)),
    ".docx": FileFormat("DOCX", read_docx),
    ".pptx": FileFormat("PPTX", read_pptx),
    ".odt": FileFormat("ODT", read_odt),
    ".epub": FileFormat("EPUB", read_epub, ("selectolax",)),
    ".eml": FileFormat("e-mail", read_eml, ("selectolax",)),
    ".mbox": FileFormat("mbox", read_mbox, ("selectolax",)),
    ".msg": FileFormat(
        "Outlook mail", markitdown_reader("OutlookMsgConverter"), ("markitdown", "olefile")
    ),
    ".rss": _FEED,
    ".atom": _FEED,
    ".ipynb": FileFormat("Jupyter notebook", read_notebook),
    ".py": _code("Python", "python"),
    ".js": _JAVASCRIPT,
    ".mjs": _JAVASCRIPT,
    ".jsx": _JAVASCRIPT,
    ".ts": _TYPESCRIPT,
    ".tsx": _code("TypeScript", "typescript", "language_tsx"),
    ".go": _code("Go", "go"),
    ".rs": _code("Rust", "rust"),
    ".java": _code("Java", "java"),
    ".c": _C,
    ".h": _C,
    ".cc": _CPP,
    ".cpp": _CPP,
    ".hpp": _CPP,
}


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def available(suffix: str) -> bool:
    """Whether files with this ending can be read here."""
    found = FORMATS.get(suffix)
    return found is not None and all(map(_installed, found.needs))


def lacking(suffix: str) -> bool:
    """Whether files with this ending could be read if more was installed."""
    return suffix in FORMATS and not available(suffix)


def find_format(name: str) -> str:
    """Return the ending of a file's name, in lower case, where it is one of ``FORMATS``, or ""."""
    dot = name.rfind(".")
    suffix = name[dot:].lower() if dot >= 0 else ""
    return suffix if suffix in FORMATS else ""
