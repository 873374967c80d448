"""The formats of files that are documents, by ending, and files as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from retrieval.corpus.documents.base import (
    FileReader,
    FileText,
    Opened,
    Problem,
    UnreadableError,
)
from retrieval.corpus.documents.code import code_reader
from retrieval.corpus.documents.html import read_html
from retrieval.corpus.documents.mail import read_eml, read_mbox
from retrieval.corpus.documents.office import read_docx, read_epub, read_odt, read_pptx
from retrieval.corpus.documents.pdf import read_pdf
from retrieval.corpus.documents.plain import (
    markitdown_reader,
    read_markdown,
    read_notebook,
    read_rst,
    read_text,
)
from retrieval.corpus.roots import Wanted
from retrieval.corpus.values import Reading, Row
from retrieval.errors import MillpondError, RecordError, count_noun

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


OWN_FIELDS = ("path", "modified", "size_bytes", "heading", "page")
"""What is said of every file or passage, whatever a file itself calls so."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file that is a document, or holds some.

    Attributes
    ----------
    root, inside : the folder that was named, and the path in it with forward slashes.
    name : its path as messages show it.
    doc_id : see ``Roots``; "" until the folders of all sources are known.
    """

    root: Wanted
    inside: str
    name: str
    doc_id: str = ""

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root.path / self.inside

    @property
    def identity(self) -> Path:
        """The same for every way to name the file; a link is not what it leads to."""
        return self.root.real / self.inside


def file_rows(files: Sequence[DocumentFile], reading: Reading) -> Iterator[Row | RecordError]:
    """Yield the documents of files, and what cannot be read of them.

    Files that ``reading.files`` knows as they are now are not read.
    """
    left_out: Counter[tuple[str, str]] = Counter()
    for file in files:
        for found in _read_file(file, reading, left_out):
            if isinstance(found, RecordError):
                reading.files.failed.append(file.doc_id)
            yield found
    for (one, several), count in left_out.items():
        if count:
            reading.note(f"{count_noun(count, one, several)} not read.")


def _read_file(
    file: DocumentFile, reading: Reading, left_out: Counter[tuple[str, str]]
) -> Iterator[Row | RecordError]:
    try:
        state = file.path.stat()
        stamp = state.st_mtime_ns // 1000, state.st_size
        if reading.files.known.get(file.doc_id) == stamp:
            reading.files.unread.append(file.doc_id)
            return
        opened = Opened(file.path, file.name, reading, left_out)
        for found in FORMATS[find_format(file.inside)].read(opened):
            if isinstance(found, Problem):
                yield RecordError(file.name, None, found.text)
            else:
                yield _to_row(file, found, stamp)
    except UnreadableError as error:
        yield RecordError(file.name, None, str(error))
    except OSError as error:
        yield RecordError(file.name, None, f"cannot be read ({error.strerror or error})")
    except (MillpondError, MemoryError):
        raise
    except Exception as error:  # libraries raise what they like for damaged files
        kind = FORMATS[find_format(file.inside)].name
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        yield RecordError(file.name, None, f"cannot be read as {kind} ({reason})")


def _to_row(file: DocumentFile, found: FileText, stamp: tuple[int, int]) -> Row:
    doc_id = f"{file.doc_id}/{found.part}" if found.part else file.doc_id
    modified = (_EPOCH + timedelta(microseconds=stamp[0])).isoformat(timespec="microseconds")
    own = {"path": file.doc_id, "modified": modified, "size_bytes": stamp[1]}
    metadata = {name: value for name, value in found.metadata.items() if name not in OWN_FIELDS}
    values = {"_id": doc_id, "title": found.title, "text": found.text, "metadata": metadata | own}
    return Row(file.name, None, values, tuple(found.sections))
