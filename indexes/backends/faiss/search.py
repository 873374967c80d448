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

__all__ = ["FaissCandidates", "open_engine"]

WIDER_STEP = 4
MOST_WIDER = 64
"""An index that gives too few even then is not asked again."""


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
    candidates = FaissCandidates(index, ExactScan(request.vectors), flat=exact)
    faiss = load_faiss()
    whole = exact or type(index) in (faiss.IndexHNSWFlat, faiss.IndexIVFFlat)
    return SearchEngine(candidates, exact, float_scores=whole)


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
        self._faiss = load_faiss()
        self._on_gpus = copy_to_gpus(self._faiss, index)
        self._scan = scan
        self._flat = flat

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows, best first.

        Where lists or a graph give fewer, it looks in more lists, or keeps more candidates, up to
        64 times as many.
        """
        if exact and not self._flat:
            return self._scan(queries, wanted, exact=True, selection=selection)
        check_fork("FAISS", self._faiss.omp_get_max_threads())
        if selection.mask is not None:
            return self._ask_selected(queries, wanted, selection)
        on_gpus = self._on_gpus is not None and wanted <= MOST_CANDIDATES
        found = _ask(self._on_gpus if on_gpus else self._index, queries, wanted)
        if self._flat:
            return found
        wider = 1
        while wider < MOST_WIDER:
            short = [number for number, (_, rows) in enumerate(found) if len(rows) < wanted]
            wider *= WIDER_STEP
            params = _parameters(self._faiss, self._index, wider=wider) if short else None
            if params is None:
                break
            again = _ask(self._index, queries[short], wanted, params)
            for number, better in zip(short, again, strict=True):
                found[number] = better
        return found

    def _ask_selected(self, queries: Vectors, wanted: int, selection: Selection) -> list[Found]:
        assert selection.mask is not None
        faiss = self._faiss
        bits = np.packbits(selection.mask, bitorder="little")  # alive while FAISS points at them
        selector = faiss.IDSelectorBitmap(bits)
        params = _parameters(faiss, self._index, selector)
        try:
            return _ask(
                self._index, queries, wanted, params or faiss.SearchParameters(sel=selector)
            )
        except RuntimeError:  # this kind of index takes no selector
            return self._scan(queries, wanted, exact=True, selection=selection)


def _ask(index: Any, queries: Vectors, wanted: int, params: Any = None) -> list[Found]:
    all_scores, all_rows = index.search(queries, wanted, params=params)
    if len(all_rows) and all_rows.min() >= 0:
        return list(zip(all_scores, all_rows, strict=True))
    return [
        (scores[rows >= 0], rows[rows >= 0])  # FAISS fills up with -1
        for scores, rows in zip(all_scores, all_rows, strict=True)
    ]


def _parameters(faiss: Any, index: Any, selector: Any = None, *, wider: int = 1) -> Any:
    """Return search parameters of an index of lists or a graph; None for every other kind.

    ``wider`` is how many times as many lists or candidates it looks at.
    """
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(faiss, faiss.downcast_index(index.index), selector, wider=wider)
        inner = inner or (selector and faiss.SearchParameters(sel=selector))
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(faiss, faiss.downcast_index(index.base_index), selector, wider=wider)
        inner = inner or (selector and faiss.SearchParameters(sel=selector))
        return inner and faiss.IndexRefineSearchParameters(
            k_factor=index.k_factor, base_index_params=inner
        )
    options = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexIVF):
        lists = min(index.nlist, wider * index.nprobe)
        return faiss.SearchParametersIVF(nprobe=lists, **options)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=wider * index.hnsw.efSearch, **options)
    return None
