"""Files as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from retrieval.corpus.documents.base import FileText, Opened, Problem, UnreadableError
from retrieval.corpus.documents.registry import FORMATS, find_format
from retrieval.corpus.roots import Wanted
from retrieval.corpus.values import Reading, Row
from retrieval.errors import MillpondError, RecordError
from retrieval.plurals import count_noun

__all__ = ["DocumentFile", "file_rows"]

OWN_FIELDS = ("path", "modified", "size_bytes", "heading", "page")
"""What is said of every file or passage, whatever a file itself calls so."""


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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
