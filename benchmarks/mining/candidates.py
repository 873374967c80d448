"""The texts that negatives are drawn from, ranked by BM25 or by a model and an index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.scoring.bm25 import Bm25
from embedder.training.data import Pair, hash_text
from indexes import Index, IndexConfig
from retrieval import Document, Encoder, check_fingerprints
from retrieval.protocols import Rows
from retrieval.scores import Doubles


class Candidates:
    """The distinct texts that negatives are drawn from; in memory.

    Attributes
    ----------
    texts : the candidates, then the positives that are none (see ``collect``).
    keys : uint64, the hash of each of ``texts``.
    count : N, how many of ``texts`` are candidates.
    empty : how many documents of the corpus hold no text.
    """

    def __init__(self, texts: Sequence[str], count: int | None = None, empty: int = 0) -> None:
        self.texts = texts
        self.keys = np.fromiter(map(hash_text, texts), np.uint64, len(texts))
        self.count = len(texts) if count is None else count
        self.empty = empty
        self._rows = {key: row for row, key in enumerate(self.keys.tolist())}

    @classmethod
    def collect(cls, pairs: Iterable[Pair], corpus: Iterable[Document] | None = None) -> Candidates:
        """Return the documents of a corpus, or the positives of the pairs if there is no corpus.

        Of texts that differ in case and blanks only, the first is kept; empty ones are not.
        Positives that a corpus lacks stand behind it in ``texts``: BM25 needs them to score
        them, and they are never drawn.
        """
        chosen: dict[int, str] = {}
        empty = 0
        for document in corpus or ():
            if document.content.strip():
                chosen.setdefault(hash_text(document.content), document.content)
            else:
                empty += 1
        count = None if corpus is None else len(chosen)
        for pair in pairs:
            chosen.setdefault(hash_text(pair.positive), pair.positive)
        return cls(list(chosen.values()), count, empty)

    def row(self, text: str) -> int:
        """Return the position of a candidate or a positive in ``texts``."""
        return self._rows[hash_text(text)]


@dataclass(frozen=True)
class Ranking:
    """The best candidates for one query.

    Attributes
    ----------
    rows : int64 (K,), into ``Candidates.texts``, best first; equal scores by row.
    scores : float64 (K,), falling.
    positive : the score of the pair's own positive, whatever its rank.
    """

    rows: Rows
    scores: Doubles
    positive: float


class Ranker(Protocol):
    """Ranks all candidates for a query."""

    def rank(self, queries: Sequence[str], positives: Sequence[str], k: int) -> list[Ranking]:
        """Return, for each query and its positive, the k best candidates or fewer."""
        ...


class BM25Ranker:
    """Ranks by the BM25 of the benchmark.

    A candidate without a word of the query is not ranked.

    Raises
    ------
    UsageError, StorageError, OSError : as ``Bm25``.
    """

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._bm25 = Bm25(candidates.texts)

    def rank(self, queries: Sequence[str], positives: Sequence[str], k: int) -> list[Ranking]:
        """Return, for each query and its positive, the k best candidates or fewer."""
        rankings = []
        for query, positive in zip(queries, positives, strict=True):
            scores, rows = self._bm25.search(query, k, self._candidates.count)
            own = self._bm25.score(query, np.array([self._candidates.row(positive)], np.int64))
            rankings.append(Ranking(rows, scores.astype(np.float64), float(own[0])))
        return rankings


def index_candidates(candidates: Candidates, encoder: Encoder, folder: Path) -> None:
    """Write the index that a ``ModelRanker`` searches; raises as ``indexes.Index.create``."""
    # Ids of one width, so that equal scores are ordered by row.
    documents = (
        Document(f"{row:012d}", text)
        for row, text in enumerate(candidates.texts[: candidates.count])
    )
    Index.create(folder, encoder, documents, IndexConfig(arms=["dense"], corpus_name="candidates"))


class ModelRanker:
    """Ranks by the cosine of a model's vectors, exactly.

    A positive that is not among the k best is embedded once more and scored against its query.

    Parameters
    ----------
    folder : what ``index_candidates`` wrote with the same candidates and model.

    Raises
    ------
    FingerprintError : another model wrote the index.
    """

    def __init__(self, candidates: Candidates, encoder: Encoder, folder: Path) -> None:
        self._candidates = candidates
        self._encoder = encoder
        self._index = Index.open(folder)
        check_fingerprints(self._index.fingerprint, encoder.fingerprint)

    def rank(self, queries: Sequence[str], positives: Sequence[str], k: int) -> list[Ranking]:
        """Return, for each query and its positive, the k best candidates or fewer."""
        vectors = self._encoder.encode_queries(queries)
        found = self._index.search(vectors, k, with_text=False)
        rows = [np.array([int(hit.doc_id) for hit in hits], np.int64) for hits in found]
        scores = [np.array([hit.score for hit in hits], np.float64) for hits in found]
        own = [self._candidates.row(text) for text in positives]
        deep = [i for i, row in enumerate(own) if row not in rows[i]]
        reached = {}
        if deep:
            embedded = self._encoder.encode_documents([positives[i] for i in deep])
            products = (vectors[deep].astype(np.float64) * embedded).sum(axis=1)
            reached = dict(zip(deep, products.tolist(), strict=True))
        return [
            Ranking(
                rows[i],
                scores[i],
                reached[i] if i in reached else float(scores[i][rows[i] == own[i]][0]),
            )
            for i in range(len(queries))
        ]
