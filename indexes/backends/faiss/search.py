"""Searches a FAISS index: any factory string, memory-mapped, filtered by an id selector."""

from __future__ import annotations

from typing import Any

import numpy as np

from indexes.backends.backend import OpenRequest, SearchEngine
from indexes.backends.faiss.build import (
    MOST_CANDIDATES,
    condense,
    copy_to_gpus,
    is_exact,
    load_faiss,
    read_faiss,
)
from indexes.search.ranking import ExactScan, Found
from indexes.search.selection import Selection
from retrieval import Vectors
from retrieval.errors import IndexCorruptError
from retrieval.forks import check_fork
from retrieval.protocols import Mask

__all__ = ["FaissCandidates", "open_engine"]


def open_engine(request: OpenRequest) -> SearchEngine:
    """Return what answers searches in the FAISS file of an index.

    Raises
    ------
    IndexCorruptError : the file cannot be read, or holds other vectors than the manifest states.
    MissingDependencyError : faiss is not installed.
    """
    manifest = request.manifest
    path = manifest.place(request.folder, "index")
    try:
        index = read_faiss(path)
    except (RuntimeError, MemoryError) as error:
        raise IndexCorruptError(
            f"{path} is damaged: {condense(error)}. Index the corpus again with --overwrite."
        ) from None
    if (index.ntotal, index.d) != (manifest.rows, manifest.dimension):
        raise IndexCorruptError(
            f"{path} is inconsistent: it holds {index.ntotal} vectors of length {index.d}, but the "
            f"manifest states {manifest.rows} of length {manifest.dimension}. Index the corpus "
            "again with --overwrite."
        )
    exact = is_exact(index)
    return SearchEngine(FaissCandidates(index, ExactScan(request.vectors), flat=exact), exact)


class FaissCandidates:
    """Asks a FAISS index for candidates; implements ``Candidates``.

    Parameters
    ----------
    index : numbers its vectors by row.
    scan : what an exact search asks where the index is not flat.
    flat : whether the index compares every vector.
    """

    def __init__(self, index: Any, scan: ExactScan, *, flat: bool) -> None:
        self._index = index
        self._on_gpus = copy_to_gpus(load_faiss(), index)
        self._scan = scan
        self._flat = flat

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows, best first."""
        if exact and not self._flat:
            return self._scan(queries, wanted, exact=True, selection=selection)
        check_fork("FAISS", load_faiss().omp_get_max_threads())
        params, kept, index = None, None, self._index
        if selection.mask is not None:
            params, kept = _select(self._index, selection.mask)
        elif self._on_gpus is not None and wanted <= MOST_CANDIDATES:
            index = self._on_gpus
        try:
            all_scores, all_rows = index.search(queries, wanted, params=params)
        except RuntimeError:
            if params is None:
                raise
            # This kind of index takes no selector.
            return self._scan(queries, wanted, exact=True, selection=selection)
        del kept  # what the selector points at, alive until here
        return [
            (scores[rows >= 0], rows[rows >= 0])  # FAISS fills up with -1
            for scores, rows in zip(all_scores, all_rows, strict=True)
        ]


def _select(index: Any, mask: Mask) -> tuple[Any, Any]:
    """Return search parameters that let these rows through, and what they point at."""
    faiss = load_faiss()
    bits = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    params = _parameters(faiss, index, selector)
    return params, (bits, selector)


def _parameters(faiss: Any, index: Any, selector: Any) -> Any:
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(faiss, faiss.downcast_index(index.index), selector)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(faiss, faiss.downcast_index(index.base_index), selector)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)
