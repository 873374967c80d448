"""The index as the rest of millpond sees it, whatever stores its vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from indexes.backends.backend import Backend, OpenRequest, SearchEngine
from indexes.search.ranking import ExactScan, Found, make_hits, rank
from indexes.search.selection import Rows, RowTable, Selection
from indexes.storage.documents import DocumentStore
from indexes.storage.manifest import Manifest
from indexes.storage.vectors import Shards, check_vectors
from retrieval import Fingerprint, Hit, Vectors
from retrieval.errors import IndexCorruptError, UsageError
from retrieval.filters import Expression

__all__ = ["StoredIndex"]

SMALL_SELECTION = 4096
"""A graph or list search is left out for so few rows: comparing all of them is as fast."""
PASSAGES_A_HIT = 4


class StoredIndex:
    """Searches with an engine and scores with the vectors in the folder; is a ``VectorIndex``.

    Where it is exact, hits, scores and order do not depend on the engine. Otherwise the engine
    chooses the candidates; their scores are exact all the same.

    Parameters
    ----------
    engine : what its backend opened.
    stored, documents, rows : the same rows in the same order.
    """

    def __init__(
        self,
        manifest: Manifest,
        engine: SearchEngine,
        stored: Shards,
        documents: DocumentStore,
        rows: RowTable,
    ) -> None:
        self.manifest = manifest
        self.exact = engine.exact
        self.stored = stored
        self.documents = documents
        self.rows = rows
        self._candidates = engine.candidates

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, backend: Backend) -> StoredIndex:
        """Return the index that ``manifest`` describes.

        Raises
        ------
        IndexCorruptError : a file cannot be read, or the files and the manifest disagree.
        MissingDependencyError : the backend's library is not installed.
        """
        documents = DocumentStore(manifest.shards(folder, "documents"))
        stored = Shards(manifest.shards(folder, "vectors"), manifest.dimension)
        fields = manifest.place(folder, "fields") if "fields" in manifest.files else None
        deleted = np.zeros(0, np.int64)
        if "deleted" in manifest.files:
            deleted = _read_deleted(manifest.place(folder, "deleted"), manifest)
        stated = (manifest.rows, manifest.rows, manifest.documents)
        if (len(stored), len(documents), manifest.rows - len(deleted)) != stated:
            raise IndexCorruptError(
                f"{folder} is inconsistent: {len(stored)} vectors and {len(documents)} documents "
                f"with {len(deleted)} deleted, but the manifest states {manifest.rows} with "
                f"{manifest.rows - manifest.documents} deleted. Index the corpus again with "
                "--overwrite."
            )
        rows = RowTable(manifest.rows, manifest.schema, fields, deleted)
        live = rows.everything.mask
        engine = backend.open(OpenRequest(folder, manifest, stored, documents, live))
        return cls(manifest, engine, stored, documents, rows)

    def as_exact(self) -> StoredIndex:
        """Return the same index, every vector compared: what recall is measured against."""
        engine = SearchEngine(self._candidates, exact=True)
        return StoredIndex(self.manifest, engine, self.stored, self.documents, self.rows)

    @property
    def dimension(self) -> int:
        """D, the length of every stored vector."""
        return self.manifest.dimension

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder that made the stored vectors."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        """Return how many documents can be found."""
        return self.manifest.documents

    def search(
        self,
        vectors: Vectors,
        k: int,
        *,
        with_text: bool = True,
        where: Expression | str | None = None,
    ) -> list[list[Hit]]:
        """Return, for each row of ``vectors`` (Q, D), at most k hits, best first.

        Fewer than k come back when fewer documents match. Equal scores are ordered by document
        id.

        Parameters
        ----------
        where : a filter on metadata fields, such as ``'year >= 2020 and lang == "en"'``; see
            ``retrieval.filters``.

        Raises
        ------
        VectorError : the vectors are not finite float32 (Q, D).
        UsageError : k is below 1, or the filter cannot be read or does not fit the fields.
        UnknownNameError : the filter names a field that no document has.
        StorageError : the server is down or refuses the key.
        """
        checked = check_vectors(vectors, self.dimension, source="queries")
        if k < 1:
            raise UsageError(f"k is {k}; it must be 1 or more.")
        selection = self.rows.select(where)
        if not len(checked):
            return []
        if not selection.count:
            return [[] for _ in checked]
        queries = np.ascontiguousarray(checked)
        if self.manifest.passages:
            return self._search_passages(queries, k, selection, with_text)
        found = self.find(queries, min(k, selection.count), selection)
        return make_hits(found, self.documents, k, with_text=with_text)

    def _search_passages(
        self, queries: Vectors, k: int, selection: Selection, with_text: bool
    ) -> list[list[Hit]]:
        """Return k documents for each query: ask for more passages until they are of k."""
        hits: dict[int, list[Hit]] = {}
        pending = list(range(len(queries)))
        wanted = min(PASSAGES_A_HIT * k, selection.count)
        while pending:
            found = self.find(queries[pending], wanted, selection)
            answers = make_hits(found, self.documents, k, with_text=with_text, passages=True)
            unsettled = []
            for query, answer, (_, rows) in zip(pending, answers, found, strict=True):
                hits[query] = answer
                if len(answer) < k and wanted <= len(rows) and wanted < selection.count:
                    unsettled.append(query)
            pending = unsettled
            wanted = min(PASSAGES_A_HIT * wanted, selection.count)
        return [hits[query] for query in range(len(queries))]

    def find(self, queries: Vectors, k: int, selection: Selection | None = None) -> list[Found]:
        """Return scores and rows of the k best and all that tie with the kth, for each query.

        ``selection`` holds k rows or more; by default all that can be found.
        """
        chosen = selection or self.rows.everything
        scan = ExactScan(self.stored)
        partly = chosen.mask is not None
        if not self.exact and partly and chosen.count <= max(SMALL_SELECTION, 4 * k):
            return rank(scan, self.stored, queries, k, exact=True, selection=chosen)
        found = rank(self._candidates, self.stored, queries, k, exact=self.exact, selection=chosen)
        short = [number for number, (_, rows) in enumerate(found) if len(rows) < k]
        if partly and short:  # a graph can lose its way among rows that may not be returned
            again = rank(scan, self.stored, queries[short], k, exact=True, selection=chosen)
            for number, better in zip(short, again, strict=True):
                found[number] = better
        return found


def _read_deleted(path: Path, manifest: Manifest) -> Rows:
    try:
        rows = np.load(path)
        fits = rows.dtype == np.int64 and rows.ndim == 1 and bool((np.diff(rows) > 0).all())
        if not fits or (len(rows) and not 0 <= rows[0] <= rows[-1] < manifest.rows):
            raise ValueError("it is not a rising list of row numbers")
    except (ValueError, OSError) as error:
        raise IndexCorruptError(
            f"{path} is damaged: {error}. Index the corpus again with --overwrite."
        ) from error
    return rows  # type: ignore[no-any-return]
