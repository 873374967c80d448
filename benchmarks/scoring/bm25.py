"""BM25, the baseline without a model: shared words, how rare they are, how long a document is."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.optional import import_optional
from retrieval import Document, Fingerprint, Hit, Query
from retrieval.errors import UsageError
from retrieval.protocols import Floats, Progress, no_progress

__all__ = ["BM25_NAME", "Bm25", "Bm25Retriever", "bm25_fingerprint", "split_words"]

BM25_NAME = "bm25"
K1 = 1.2
B = 0.75

_STOPWORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there
these they this to was will with
"""
STOPWORDS = frozenset(_STOPWORDS.split())
"""Lucene's English ones."""

_WORD = re.compile(r"\w\w+")


def bm25_fingerprint() -> Fingerprint:
    """Return what decides the scores of BM25."""
    return Fingerprint(
        BM25_NAME,
        {
            "method": "lucene",
            "k1": K1,
            "b": B,
            "stopwords": "lucene-english",
            "stemmer": "plural-s",
            "bm25_version": 1,
        },
    )


def split_words(text: str) -> list[str]:
    """Return the words of a text: lower case, two letters or more, no stopwords, singular."""
    return [_singular(word) for word in _WORD.findall(text.lower()) if word not in STOPWORDS]


def _singular(word: str) -> str:
    """Return an English word without its plural ending (the "S" stemmer of Harman, 1991)."""
    if word.endswith("ies") and len(word) > 4 and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and len(word) > 3 and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("s") and len(word) > 3 and not word.endswith(("us", "ss")):
        return word[:-1]
    return word


class Bm25:
    """Lucene's BM25 over texts, in memory: about 8 bytes per distinct word of a text.

    Parameters
    ----------
    texts : read once and not kept.

    Raises
    ------
    MissingDependencyError : bm25s is not installed.
    UsageError : no text holds a word.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        bm25s = import_optional("bm25s", "BM25")
        self._vocabulary: dict[str, int] = {}
        number = self._vocabulary.setdefault
        rows = [
            array("i", [number(word, len(self._vocabulary)) for word in split_words(text)])
            for text in texts
        ]
        if not self._vocabulary:
            raise UsageError(
                "No text holds a word that BM25 could find. Rank by a model instead: 'millpond "
                "bench --model MODEL', 'millpond mine --by MODEL'."
            )
        self._model: Any = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._model.index((rows, self._vocabulary), show_progress=False)

    @property
    def bytes(self) -> int:
        """The size of the arrays that are searched."""
        arrays = self._model.scores.values()
        return sum(part.nbytes for part in arrays if isinstance(part, np.ndarray))

    def scores(self, text: str) -> Floats:
        """Return the score of every text for this one, float32 (N,); 0 without a common word."""
        found = (self._vocabulary.get(word) for word in split_words(text))
        scores: Floats = self._model.get_scores_from_ids([row for row in found if row is not None])
        return scores


class Bm25Retriever:
    """Answers text queries by BM25; searched like ``retrieval.Retriever``.

    Parameters
    ----------
    documents : iterated once now, and once more by a ``search_many`` that wants texts.
    progress : called after each document.

    Raises
    ------
    MissingDependencyError, UsageError : as ``Bm25``.
    """

    def __init__(self, documents: Iterable[Document], progress: Progress = no_progress) -> None:
        self._documents = documents
        self._ids: list[str] = []
        self._bm25 = Bm25(self._read(progress))
        # Where scores are equal, the smaller id comes first, as in our indexes.
        self._by_id = np.argsort(np.array(self._ids, dtype=object), kind="stable")

    def _read(self, progress: Progress) -> Iterator[str]:
        for document in self._documents:
            self._ids.append(document.doc_id)
            yield document.content
            progress(1)

    @property
    def bytes(self) -> int:
        """The size of the arrays that are searched."""
        return self._bm25.bytes

    def search(self, text: str, k: int = 10) -> list[Hit]:
        """Return at most k hits without texts, best first; a hit shares a word with the text."""
        scores = self._bm25.scores(text)[self._by_id]
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Hit(rank, self._ids[self._by_id[place]], float(scores[place]))
            for rank, place in enumerate(best.tolist(), start=1)
            if scores[place] > 0
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
