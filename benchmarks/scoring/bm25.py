"""BM25, the baseline that needs no model: words, how rare they are, how long a document is."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scoring.optional import import_optional
from retrieval import Document, Fingerprint, Hit, Progress, Query

__all__ = ["BM25_NAME", "Bm25Index", "bm25_fingerprint", "split_words"]

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
_PURPOSE = "The model bm25"


def bm25_fingerprint() -> Fingerprint:
    """Return what decides the scores of this baseline."""
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


class Bm25Index:
    """Lucene's BM25 over a corpus, in memory: about 8 bytes for each distinct word of a document.

    Parameters
    ----------
    documents : read once; their texts are not kept.
    progress : called after each document.

    Raises
    ------
    MissingDependencyError : bm25s is not installed.
    """

    def __init__(self, documents: Iterable[Document], progress: Progress | None = None) -> None:
        bm25s = import_optional("bm25s", _PURPOSE)
        self.ids: list[str] = []
        vocabulary: dict[str, int] = {}
        rows: list[Any] = []
        for document in documents:
            words = split_words(document.content)
            rows.append(array("i", [vocabulary.setdefault(w, len(vocabulary)) for w in words]))
            self.ids.append(document.doc_id)
            if progress is not None:
                progress(1)
        self._model = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._model.index((rows, vocabulary), show_progress=False)
        self._vocabulary = vocabulary
        # Where scores are equal, the smaller id comes first, as in our indexes.
        self._by_id = np.argsort(np.array(self.ids, dtype=object), kind="stable")

    @property
    def bytes(self) -> int:
        """The size of the arrays that are searched."""
        arrays = self._model.scores
        return sum(part.nbytes for part in arrays.values() if isinstance(part, np.ndarray))

    def search(self, text: str, k: int) -> list[Hit]:
        """Return at most k hits without texts, best first; a hit shares a word with the text."""
        words = [word for word in split_words(text) if word in self._vocabulary]
        if not words:
            return []
        scores: npt.NDArray[np.float32] = self._model.get_scores(words)
        in_order = scores[self._by_id]
        best = np.argsort(-in_order, kind="stable")[:k]
        return [
            Hit(rank, self.ids[self._by_id[place]], float(in_order[place]))
            for rank, place in enumerate(best.tolist(), start=1)
            if in_order[place] > 0
        ]

    def search_many(
        self, queries: Sequence[Query], k: int, documents: Iterable[Document], texts: int
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Yield each query with its hits, the first ``texts`` of them with title and text.

        Parameters
        ----------
        documents : the same ones again, read once.
        """
        found = [self.search(query.text, k) for query in queries]
        wanted = {hit.doc_id for hits in found for hit in hits[:texts]}
        shown = {
            document.doc_id: (document.title, document.text)
            for document in documents
            if document.doc_id in wanted
        }
        for query, hits in zip(queries, found, strict=True):
            yield (
                query,
                [
                    Hit(hit.rank, hit.doc_id, hit.score, *shown.get(hit.doc_id, ("", "")))
                    for hit in hits
                ],
            )
