"""Texts with ids, from any corpus source or the lines of a .txt file, and what tells a text."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from retrieval.corpus import read_corpus
from retrieval.corpus.formats import open_bytes, read_lines
from retrieval.errors import EmptyCorpusError, RecordError

__all__ = ["Texts", "text_digest"]


def text_digest(text: str) -> bytes:
    """Return 16 bytes that two different texts do not share."""
    return blake2b(text.encode(), digest_size=16).digest()


class Texts:
    """Ids and texts of any corpus source, or of the lines of a .txt file.

    Parameters
    ----------
    source : as ``read_corpus`` takes it, or a .txt or .txt.gz file: the line number is the id, and
        an empty line an empty text.
    skip_bad : whether bad records are counted and left out.

    Raises
    ------
    RecordError : a bad record, unless ``skip_bad``; carries source and line.
    EmptyCorpusError : there is no text at all.
    """

    def __init__(self, source: str, *, skip_bad: bool = False) -> None:
        self._source = source
        self._skip_bad = skip_bad
        self._bad: list[str] = []
        lines = Path(source).is_file() and source.lower().endswith((".txt", ".txt.gz"))
        self._corpus = None if lines else read_corpus(source, skip_bad=skip_bad)

    @property
    def count_hint(self) -> int | None:
        """The number of texts, if that is cheap to know."""
        return None if self._corpus is None else self._corpus.count_hint

    @property
    def notes(self) -> tuple[str, ...]:
        """A line on each thing to know of how the last reading went; see ``Corpus.notes``."""
        return () if self._corpus is None else self._corpus.notes

    @property
    def skipped(self) -> int:
        """How many bad records the last reading left out."""
        return len(self._bad) if self._corpus is None else self._corpus.skipped

    @property
    def first_skipped(self) -> list[str]:
        """What was wrong with the first of them."""
        return self._bad if self._corpus is None else list(self._corpus.first_skipped)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if self._corpus is None:
            return self._read_lines()
        return ((document.doc_id, document.content) for document in self._corpus)

    def _read_lines(self) -> Iterator[tuple[str, str]]:
        self._bad.clear()
        count = 0
        with open_bytes(Path(self._source), self._source) as stream:
            for number, line, problem in read_lines(stream):
                if not problem:
                    count += 1
                    yield str(number), line.rstrip("\r\n")
                elif self._skip_bad:
                    self._bad.append(f"{self._source}:{number}: {problem}")
                else:
                    advice = "Fix it, or pass --skip-bad to count such lines and go on"
                    raise RecordError(self._source, number, f"{problem}. {advice}")
        if count == 0:
            raise EmptyCorpusError(
                f"{self._source}: it holds no text; expected one text per line. Check "
                f"that this is the file you meant."
            )
