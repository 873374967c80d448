"""The FAISS backend: any factory string, memory-mapped, with ties settled by document id."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes.documents import DocumentStore
from indexes.faiss_build import condense, load_faiss, read_faiss
from indexes.manifest import Manifest
from indexes.shards import check_vectors
from retrieval import Document, Fingerprint, Hit, Vectors
from retrieval.errors import IndexCorruptError, UsageError

__all__ = ["FaissIndex"]

EXTRA_CANDIDATES = 16

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class FaissIndex:
    """Searches a FAISS index and the documents beside it; implements ``VectorIndex``.

    A Flat index is exact: candidates are scored again in float64 and rounded to float32, so
    that equal vectors have equal scores whatever the batch, and ties at rank k go to the
    smallest document ids. Other kinds are ordered by the scores that FAISS gives.
    """

    def __init__(self, index: Any, documents: DocumentStore, manifest: Manifest) -> None:
        self.manifest = manifest
        self._index = index
        self._documents = documents
        faiss = load_faiss()
        self._stored: Vectors | None = None
        if type(index) in (faiss.IndexFlat, faiss.IndexFlatIP):
            flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
            self._stored = flat.reshape(index.ntotal, index.d)

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> FaissIndex:
        """Return the index that ``manifest`` describes.

        Raises
        ------
        IndexCorruptError : a file cannot be read, or the files and the manifest disagree.
        MissingDependencyError : faiss is not installed.
        """
        path = folder / manifest.place("index")
        documents = DocumentStore(folder / manifest.place("documents"))
        try:
            index = read_faiss(path)
        except (RuntimeError, MemoryError) as error:
            raise IndexCorruptError(
                f"{path} is damaged: {condense(error)}. Index the corpus again with --overwrite."
            ) from None
        found = (index.ntotal, len(documents), index.d)
        stated = (manifest.documents, manifest.documents, manifest.dimension)
        if found != stated:
            raise IndexCorruptError(
                f"{folder} is inconsistent: {found[0]} vectors of length {found[2]} and "
                f"{found[1]} documents, but the manifest states {stated[0]} of length "
                f"{stated[2]}. Index the corpus again with --overwrite."
            )
        return cls(index, documents, manifest)

    @property
    def dimension(self) -> int:
        """D, the length of every stored vector."""
        return self.manifest.dimension

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder that made the stored vectors."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        """Return how many documents are stored."""
        return self.manifest.documents

    def search(self, vectors: Vectors, k: int, *, with_text: bool = True) -> list[list[Hit]]:
        """Return, for each row of ``vectors`` (Q, D), at most k hits, best first.

        Fewer than k come back when the index holds fewer, or when an approximate index visits
        fewer. Equal scores are ordered by document id.

        Raises
        ------
        VectorError : the vectors are not finite float32 (Q, D).
        UsageError : k is below 1.
        """
        checked = check_vectors(vectors, self.dimension, source="queries")
        if k < 1:
            raise UsageError(f"k is {k}; it must be 1 or more.")
        if not len(checked):
            return []
        k = min(k, len(self))
        found = self._search_with_ties(np.ascontiguousarray(checked), k)
        ids = self._documents.ids(np.concatenate([rows for _, rows in found]))
        best = [_order(scores, rows, ids)[:k] for scores, rows in found]
        texts: dict[int, Document] = {}
        if with_text:
            texts = self._documents.documents(
                np.array([row for hits in best for _, _, row in hits], dtype=np.int64)
            )
        return [
            [_hit(rank, *hit, texts) for rank, hit in enumerate(hits, start=1)] for hits in best
        ]

    def _search_with_ties(self, queries: Vectors, k: int) -> list[tuple[Scores, Rows]]:
        """Return, for each query, the scores and rows of the k best and all that tie with the kth.

        Asks FAISS for a few more than k, and for twice as many for as long as what lies beyond
        could still tie.
        """
        found: dict[int, tuple[Scores, Rows]] = {}
        pending = list(range(len(queries)))
        wanted = min(k + EXTRA_CANDIDATES, len(self))
        while pending:
            all_scores, all_rows = self._index.search(queries[pending], wanted)
            unsettled = []
            for query, scores, rows in zip(pending, all_scores, all_rows, strict=True):
                seen = rows >= 0  # FAISS fills up with -1
                scores, rows = scores[seen], rows[seen]
                exact, slack = self._rescore(queries[query], scores, rows)
                threshold = np.sort(exact)[-k] if len(exact) >= k else -np.inf
                if len(rows) == wanted < len(self) and scores[-1] + slack >= threshold:
                    unsettled.append(query)
                    continue
                kept = exact >= threshold
                found[query] = (exact[kept], rows[kept])
            pending = unsettled
            wanted = min(2 * wanted, len(self))
        return [found[query] for query in range(len(queries))]

    def _rescore(self, query: Vectors, scores: Scores, rows: Rows) -> tuple[Scores, float]:
        """Return reproducible scores, and how far FAISS' own may be off.

        FAISS multiplies in float32 and in blocks, so that the last digit of a score depends on
        where a vector lies in the file. Products of two float32 are exact in float64.
        """
        if self._stored is None:
            return scores, 0.0
        stored = self._stored[rows].astype(np.float64)
        wide = query.astype(np.float64)
        exact = (stored * wide).sum(axis=1)
        longest = math.sqrt(float((stored * stored).sum(axis=1).max(initial=0.0)))
        length = math.sqrt(float((wide * wide).sum()))
        slack = 4 * math.sqrt(self.dimension) * 2.0**-24 * length * longest
        return exact.astype(np.float32), slack


def _order(scores: Scores, rows: Rows, ids: dict[int, str]) -> list[tuple[str, float, int]]:
    """Return (id, score, row) by falling score, then by id."""
    triples = [
        (ids[row], score, row) for score, row in zip(scores.tolist(), rows.tolist(), strict=True)
    ]
    return sorted(triples, key=lambda triple: (-triple[1], triple[0]))


def _hit(rank: int, doc_id: str, score: float, row: int, texts: dict[int, Document]) -> Hit:
    if row not in texts:
        return Hit(rank, doc_id, score)
    document = texts[row]
    return Hit(rank, doc_id, score, document.title, document.text, document.metadata)
