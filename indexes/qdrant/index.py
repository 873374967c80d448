"""The Qdrant index as the rest of millpond sees it."""

from __future__ import annotations

import numpy as np

from indexes.documents import DocumentStore
from indexes.manifest import Manifest
from indexes.qdrant.ranking import Candidates, StoredVectors, make_hits, rank
from indexes.shards import check_vectors
from retrieval import Fingerprint, Hit, Vectors
from retrieval.errors import UsageError

__all__ = ["QdrantIndex"]


class QdrantIndex:
    """Searches with Qdrant and scores with the vectors in the folder; is a ``VectorIndex``.

    Exact where it was built as Flat: the hits, scores and order are those of an exact FAISS
    index. Otherwise Qdrant's graph chooses the candidates; their scores are exact all the same.

    Parameters
    ----------
    candidates : asks the engine or the server.
    exact : every vector is compared.
    """

    def __init__(
        self,
        candidates: Candidates,
        stored: StoredVectors,
        documents: DocumentStore,
        manifest: Manifest,
        *,
        exact: bool,
    ) -> None:
        self.manifest = manifest
        self.exact = exact
        self._candidates = candidates
        self._stored = stored
        self._documents = documents

    def as_exact(self) -> QdrantIndex:
        """Return the same index, searched without its graph: what recall is measured against."""
        return QdrantIndex(
            self._candidates, self._stored, self._documents, self.manifest, exact=True
        )

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

        Fewer than k come back when the index holds fewer. Equal scores are ordered by document
        id.

        Raises
        ------
        VectorError : the vectors are not finite float32 (Q, D).
        UsageError : k is below 1.
        StorageError : the server is down or refuses the key.
        """
        checked = check_vectors(vectors, self.dimension, source="queries")
        if k < 1:
            raise UsageError(f"k is {k}; it must be 1 or more.")
        if not len(checked):
            return []
        k = min(k, len(self))
        queries = np.ascontiguousarray(checked)
        found = rank(self._candidates, self._stored, queries, k, exact=self.exact)
        return make_hits(found, self._documents, k, with_text=with_text)
