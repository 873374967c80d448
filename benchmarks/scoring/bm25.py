"""BM25, the baseline without a model: the lexical arm of an index, over a corpus of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from indexes.lexical.arm import K1, B, LexicalArm
from indexes.lexical.build import write_rows
from indexes.search.ranking import Found
from indexes.search.selection import Selection
from retrieval import Document, Fingerprint, Hit, Query
from retrieval.analysis import (
    ANALYSER_VERSION,
    DETECTED_DOCUMENTS,
    Analyser,
    detect_language,
)
from retrieval.errors import UsageError
from retrieval.protocols import Floats, Progress, Rows, no_progress

BM25_NAME = "bm25"


def bm25_fingerprint() -> Fingerprint:
    """Return what decides the scores of BM25."""
    return Fingerprint(
        BM25_NAME,
        {
            "method": "tantivy",
            "k1": K1,
            "b": B,
            "language": "detected",
            "analyser": ANALYSER_VERSION,
            "bm25_version": 3,
        },
    )


class Bm25:
    """BM25 over texts in the language of the first 1,000, in temporary files without a name.

    Parameters
    ----------
    texts : read once and not kept.

    Raises
    ------
    UsageError : no text holds a word.
    StorageError, OSError : there is no room for temporary files.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        stream = iter(texts)
        first = list(islice(stream, DETECTED_DOCUMENTS))
        self.language = detect_language(first)
        analyser = Analyser(self.language)
        # What is open is still there when its folder is not.
        temporary = tempfile.TemporaryDirectory(prefix="millpond-bm25-", ignore_cleanup_errors=True)
        with temporary as folder:
            self.count = write_rows(Path(folder), enumerate(chain(first, stream)), analyser)
            files = sorted(Path(folder).iterdir())
            self.bytes = sum(file.stat().st_size for file in files)
            self._arm = LexicalArm(files, self.language)
            holds_words = self._arm.holds_words
        if not holds_words:
            raise UsageError(
                "No text holds a word that BM25 could find. Rank by a model instead: 'millpond "
                "bench --model MODEL', 'millpond mine --by MODEL'."
            )

    def search(self, text: str, k: int, among: int | None = None) -> Found:
        """Return scores and rows of the k best texts that share a word, equal scores by row.

        ``among`` is the number of the texts, from the first on, that may be returned.
        """
        if among is None or among == self.count:
            return self._arm.search(text, k, Selection(self.count))
        mask = np.arange(self.count) < among
        return self._arm.search(text, k, Selection(among, mask))

    def score(self, text: str, rows: Rows) -> Floats:
        """Return the score of these texts, float32 (K,); 0 without a common word."""
        return self._arm.score(text, rows)


class Bm25Retriever:
    """Answers text queries by BM25; searched like ``retrieval.Retriever``.

    Parameters
    ----------
    documents : iterated once now, and once more by a ``search_many`` that wants texts.
    progress : called after each document.

    Raises
    ------
    UsageError, StorageError, OSError : as ``Bm25``.
    """

    def __init__(self, documents: Iterable[Document], progress: Progress = no_progress) -> None:
        self._documents = documents
        self._ids: list[str] = []
        self._bm25 = Bm25(self._read(progress))

    def _read(self, progress: Progress) -> Iterator[str]:
        for document in self._documents:
            self._ids.append(document.doc_id)
            yield document.content
            progress(1)

    @property
    def bytes(self) -> int:
        """The size of the files that are searched."""
        return self._bm25.bytes

    def search(self, text: str, k: int = 10) -> list[Hit]:
        """Return at most k hits without texts, best first; a hit shares a word with the text.

        Where scores are equal, the smaller id comes first, as in our indexes.
        """
        wanted = k + 1
        scores, rows = self._bm25.search(text, wanted)
        while len(rows) == wanted and scores[k - 1] == scores[-1]:  # more may tie with the kth
            wanted *= 4
            scores, rows = self._bm25.search(text, wanted)
        names = [self._ids[row] for row in rows.tolist()]
        ordered = sorted(zip((-scores).tolist(), names, strict=True))[:k]
        return [
            Hit(rank, doc_id, -negative) for rank, (negative, doc_id) in enumerate(ordered, start=1)
        ]

    def search_many(
        self, queries: Iterable[Query], k: int = 10, *, with_text: bool = False, batch: int = 256
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Yield each query with its k best hits, holding all hits in memory; ``batch`` is unused.

        With ``with_text=True`` the hits carry title and text.
        """
        found = [(query, self.search(query.text, k)) for query in queries]
        texts: dict[str, tuple[str, str]] = {}
        if with_text:
            wanted = {hit.doc_id for _, hits in found for hit in hits}
            texts = {
                one.doc_id: (one.title, one.text) for one in self._documents if one.doc_id in wanted
            }
        for query, hits in found:
            shown = [(hit, *texts.get(hit.doc_id, ("", ""))) for hit in hits]
            yield query, [replace(hit, title=title, text=text) for hit, title, text in shown]
