"""Files as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from retrieval.corpus.documents.base import FileText, Opened, Problem, UnreadableError
from retrieval.corpus.documents.registry import FORMATS, find_format
from retrieval.corpus.roots import Wanted
from retrieval.corpus.values import Reading, Row
from retrieval.errors import MillpondError, RecordError
from retrieval.plurals import count_noun

__all__ = ["DocumentFile", "file_rows"]

OWN_FIELDS = ("path", "modified", "heading", "page")
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


def file_rows(files: Sequence[DocumentFile], reading: Reading) -> Iterator[Row | RecordError]:
    """Yield the documents of files, and what cannot be read of them."""
    left_out: Counter[tuple[str, str]] = Counter()
    for file in files:
        try:
            modified = datetime.fromtimestamp(int(file.path.stat().st_mtime), UTC).isoformat()
            opened = Opened(file.path, file.name, reading, left_out)
            for found in FORMATS[find_format(file.inside)].read(opened):
                if isinstance(found, Problem):
                    yield RecordError(file.name, None, found.text)
                else:
                    yield _to_row(file, found, modified)
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
    for (one, several), count in left_out.items():
        if count:
            reading.note(f"{count_noun(count, one, several)} not read.")


def _to_row(file: DocumentFile, found: FileText, modified: str) -> Row:
    doc_id = f"{file.doc_id}/{found.part}" if found.part else file.doc_id
    own = {"path": file.doc_id, "modified": modified}
    metadata = {name: value for name, value in found.metadata.items() if name not in OWN_FIELDS}
    values = {"_id": doc_id, "title": found.title, "text": found.text, "metadata": metadata | own}
    return Row(file.name, None, values, tuple(found.sections))
