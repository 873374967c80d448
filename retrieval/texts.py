"""Texts with ids, from any corpus source or the lines of a .txt file, and what tells a text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path

from retrieval.corpus import Corpus, read_corpus
from retrieval.corpus.lines import open_bytes, read_lines
from retrieval.corpus.sources import Part, Source
from retrieval.corpus.values import Reading, Row
from retrieval.errors import RecordError


def text_digest(text: str) -> bytes:
    """Return 16 bytes that two different texts do not share."""
    return blake2b(text.encode(), digest_size=16).digest()


def open_texts(source: str, *, skip_bad: bool = False) -> Corpus:
    """Return the documents of any corpus source, or the lines of a .txt file as documents.

    Parameters
    ----------
    source : as ``read_corpus`` takes it, or a .txt or .txt.gz file: the line number is the id, and
        an empty line an empty text.
    skip_bad : whether bad records are counted and left out.

    Raises
    ------
    MillpondError : as ``read_corpus``.
    """
    path = Path(source)
    if not (path.is_file() and source.lower().endswith((".txt", ".txt.gz"))):
        return read_corpus(source, skip_bad=skip_bad)
    lines = Part(partial(_line_rows, path, source), plain=True)
    return Corpus(Source(source, (lines,), noun="text"), skip_bad=skip_bad)


def _line_rows(path: Path, source: str, _: Reading) -> Iterator[Row | RecordError]:
    with open_bytes(path, source) as stream:
        for number, line, problem in read_lines(stream):
            if problem:
                yield RecordError(source, number, problem)
            else:
                yield Row(source, number, {"_id": str(number), "text": line.rstrip("\r\n")})
