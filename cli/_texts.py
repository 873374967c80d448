"""Texts as commands read them: the documents of a corpus, or the lines of a .txt file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cli._console import warn

__all__ = ["Texts"]


class Texts:
    """Ids and texts of any corpus source, or of the lines of a .txt file."""

    def __init__(self, source: str, *, skip_bad: bool) -> None:
        from retrieval import read_corpus

        self._source = source
        self._skip_bad = skip_bad
        self._bad: list[str] = []
        self._lines = Path(source).is_file() and source.lower().endswith((".txt", ".txt.gz"))
        self._corpus = None if self._lines else read_corpus(source, skip_bad=skip_bad)

    @property
    def count_hint(self) -> int | None:
        """How many texts there are, where that is cheap to know."""
        return None if self._corpus is None else self._corpus.count_hint

    def __iter__(self) -> Iterator[tuple[str, str]]:
        if self._corpus is None:
            return self._read_lines()
        return ((document.doc_id, document.content) for document in self._corpus)

    def warn_skipped(self) -> None:
        """Say how many bad records were left out, if any."""
        skipped, first = len(self._bad), self._bad[:1]
        if self._corpus is not None:
            skipped, first = self._corpus.skipped, list(self._corpus.first_skipped[:1])
        if skipped:
            warn(f"{skipped:,} bad records were skipped. The first: {first[0]}")

    def _read_lines(self) -> Iterator[tuple[str, str]]:
        """Yield line number and line; an empty line is an empty text."""
        from retrieval.corpus.lines import open_bytes, read_lines
        from retrieval.errors import EmptyCorpusError, RecordError

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
                f"{self._source}: it holds no text; accepted is one text a line. Check that this "
                f"is the file you meant."
            )
