"""FAISS: any factory string, built from shards, memory-mapped, filtered by an id selector."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexes.backends.backend import BuildRequest, BuildResult, OpenRequest, SearchEngine
from indexes.search.ranking import ExactScan, Found
from indexes.search.selection import Selection
from indexes.storage.files import damaged
from indexes.storage.vectors import Shards
from retrieval import Scalar, Vectors
from retrieval.errors import (
    IndexCorruptError,
    StorageError,
    UsageError,
    check_fork,
    import_optional,
)

INDEX_NAME = "index.faiss"
MOST_CANDIDATES = 2048
"""A GPU search returns no more than this for a query."""
BLAS_QUERIES = 20
"""With at least so many queries at once, FAISS compares by matrix products."""
EXAMPLES = "Flat, HNSW32, IVF256,Flat, SQ8"
TRAINING_SEED = 0
TRAINING_ROWS = 65_536
TRAINING_ROWS_PER_LIST = 64
HNSW_SEARCH_BREADTH = 64
WIDER_STEP = 4
MOST_WIDER = 64
"""An index that gives too few even then is not asked again."""

GRAPHS = ("HNSW", "NSG")
NUMBERS = re.compile(r"(?P<kind>[A-Za-z]+)(?P<number>[0-9]+)(?:x(?P<bits>[0-9]+))?")

# fourcc, D, N, two reserved words, is_trained, metric, number of floats that follow.
FLAT_HEADER = struct.Struct("<4siqqq?iQ")


def load_faiss() -> Any:
    """Return the faiss module.

    Raises
    ------
    MissingDependencyError : neither faiss-cpu nor faiss-gpu is installed.
    """
    install = "pip install 'millpond[cpu]' (NVIDIA GPU: pip install 'millpond[gpu]')"
    faiss = import_optional("faiss", "The faiss index", install)
    # faiss 1.15 starts with 128,000, and takes ten times as long for a batch of exact searches.
    settings = faiss.cvar
    settings.distance_compute_blas_threshold = min(
        settings.distance_compute_blas_threshold, BLAS_QUERIES
    )
    return faiss


def check_factory(dimension: int, factory: str) -> None:
    """Raise UsageError unless FAISS can make an index of this kind for vectors of length D."""
    _new_index(dimension, factory)


def build(request: BuildRequest) -> BuildResult:
    """Write ``request.folder/index.faiss``, trained on a sample of the vectors if need be.

    Raises
    ------
    UsageError : FAISS cannot build this factory, or not from so few documents.
    StorageError : what was written cannot be read back.
    OSError : the disk refuses.
    """
    faiss = load_faiss()
    vectors = request.vectors
    index = _new_index(vectors.dimension, request.factory)
    path = request.folder / INDEX_NAME
    settings: dict[str, Scalar] = {}
    with _one_line_errors(request.factory, len(vectors)):
        if not _write_flat(index, vectors, path):
            extended = _extend(request)
            if extended is None:
                fast = copy_to_gpus(faiss, index)
                filled = index if fast is None else fast
                settings |= _train(filled, vectors)
                for block in vectors:
                    filled.add(block)
                index = filled if fast is None else faiss.index_gpu_to_cpu(filled)
            else:
                index = extended
                settings["extended"] = True
            settings |= _set_search_breadth(index)
            _write(index, path)
    exact = is_exact(index)
    del index
    stored = read_faiss(path).ntotal
    if stored != len(vectors):
        raise StorageError(f"{path} holds {stored} vectors after {len(vectors)} were written.")
    return BuildResult(settings, {"faiss": str(faiss.__version__)}, exact)


def read_faiss(path: Path) -> Any:
    """Return the index in this file, memory-mapped where its type allows (Flat, HNSW, IVF, SQ, PQ).

    Raises
    ------
    RuntimeError : FAISS cannot read the file.
    """
    faiss = load_faiss()
    # FAISS before 1.11 maps inverted lists only.
    flag = getattr(faiss, "IO_FLAG_MMAP_IFC", faiss.IO_FLAG_MMAP)
    return faiss.read_index(str(path), flag)


def copy_to_gpus(faiss: Any, index: Any) -> Any | None:
    """Return a copy of the index on all GPUs; None without a GPU, or for a kind that stays on CPUs.

    FAISS has Flat, IVF and a few more kinds on GPUs, and no HNSW. A copy that does not fit into
    the GPUs' memory is no error: the index is searched where it is.
    """
    if getattr(faiss, "get_num_gpus", int)() == 0:
        return None
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError:
        return None


def is_exact(index: Any) -> bool:
    """Return whether a search of this index compares every vector as it is."""
    faiss = load_faiss()
    return type(index) in (faiss.IndexFlat, faiss.IndexFlatIP)


def condense(error: Exception) -> str:
    """Return the last clause of a FAISS error, without the C++ function, file and line."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    return re.sub(r"^Error: '.*?' failed:? ?", "", text).strip() or text


def _new_index(dimension: int, factory: str) -> Any:
    faiss = load_faiss()
    _check_numbers(dimension, factory)
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise _refused(factory, dimension, condense(error)) from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise _refused(factory, dimension, "it cannot search by inner product")
    if isinstance(index, (faiss.IndexIDMap, faiss.IndexIDMap2)):
        raise _refused(factory, dimension, "IDMap is not needed: rows are numbered already")
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None and ivf.nlist < 1:
        raise _refused(factory, dimension, "IVF needs at least one list")
    return index


def _check_numbers(dimension: int, factory: str) -> None:
    """Raise UsageError for numbers that FAISS takes and then crashes or hangs with."""
    for part in NUMBERS.finditer(factory):
        kind, least = part["kind"], 2 if part["kind"] in GRAPHS else 1
        if int(part["number"]) < least and not kind.startswith("PCA"):
            raise _refused(factory, dimension, f"{kind} needs a number of {least} or more")
        if part["bits"] is not None and int(part["bits"]) < 1:
            raise _refused(factory, dimension, f"{kind} needs 1 bit or more after the x")


def _refused(factory: str, dimension: int, reason: str) -> UsageError:
    return UsageError(
        f"FAISS cannot make the index {factory!r} for vectors of length {dimension}: {reason}. "
        f"Examples that work: {EXAMPLES}"
    )


@contextmanager
def _one_line_errors(factory: str, documents: int) -> Iterator[None]:
    """Turn a FAISS error into one line that says how to go on."""
    try:
        yield
    except RuntimeError as error:
        raise UsageError(
            f"FAISS cannot build {factory!r} from {documents} documents: {condense(error)}. "
            f"Use more documents, fewer lists, or an index without training (Flat, HNSW32)."
        ) from None


def _train(index: Any, vectors: Shards) -> dict[str, Scalar]:
    """Train the index on a seeded sample if it asks for it; return what was done."""
    if index.is_trained:
        return {}
    ivf = load_faiss().try_extract_index_ivf(index)
    lists = 0 if ivf is None else ivf.nlist
    sample = vectors.sample(max(TRAINING_ROWS, TRAINING_ROWS_PER_LIST * lists), seed=TRAINING_SEED)
    index.train(sample)
    return {"training_rows": len(sample), "training_seed": TRAINING_SEED}


def _extend(request: BuildRequest) -> Any | None:
    """Return the previous index with the rows that it lacks, or None if there is none."""
    if request.previous is None:
        return None
    faiss = load_faiss()
    index = faiss.read_index(str(request.previous()))
    start = 0
    for block in request.vectors:
        missing = block[max(0, index.ntotal - start) :]
        start += len(block)
        if len(missing):
            index.add(missing)
    return index


def _set_search_breadth(index: Any) -> dict[str, Scalar]:
    """Raise FAISS' defaults (1 list, 16 candidates), which lose most neighbours in small lists."""
    faiss = load_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.nprobe = min(ivf.nlist, max(8, ivf.nlist // 16))
        return {"nprobe": int(ivf.nprobe)}
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = HNSW_SEARCH_BREADTH
        return {"efSearch": HNSW_SEARCH_BREADTH}
    return {}


def _write(index: Any, path: Path) -> None:
    """Write through a Python file, so that a full disk raises OSError with its number."""
    faiss = load_faiss()
    with path.open("wb") as stream:
        faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write, 1 << 20))


def _write_flat(index: Any, vectors: Shards, path: Path) -> bool:
    """Stream a Flat index to disk without holding it in memory; False if it is another kind.

    The bytes are those of ``faiss.write_index``. Should a later FAISS lay the header out in
    another way, the answer is False as well.
    """
    faiss = load_faiss()
    if not is_exact(index):
        return False
    empty = faiss.serialize_index(index).tobytes()
    if len(empty) != FLAT_HEADER.size:
        return False
    fourcc, dimension, count, *reserved, trained, metric, floats = FLAT_HEADER.unpack(empty)
    if (fourcc, dimension, count, floats) != (b"IxFI", vectors.dimension, 0, 0):
        return False
    count = len(vectors)
    header = (fourcc, dimension, count, *reserved, trained, metric, count * dimension)
    with path.open("wb") as stream:
        stream.write(FLAT_HEADER.pack(*header))
        for block in vectors:
            stream.write(block.astype("<f4", copy=False).data)
    return True


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
        raise damaged(path, condense(error)) from None
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
    # OpenMP's threads wait for each other, busily, after each block of a Flat index. Threads that
    # compute alone do not, and need half the processor time.
    return SearchEngine(
        candidates,
        exact,
        float_scores=whole,
        threads=faiss.omp_get_max_threads() if candidates.on_gpus is None else 1,
        start_thread=partial(faiss.omp_set_num_threads, 1),
    )


class FaissCandidates:
    """Asks a FAISS index for candidates; implements ``Candidates``.

    Parameters
    ----------
    index : numbers its vectors by row.
    scan : what an exact search asks where the index is not flat.
    flat : whether the index compares every vector.

    Attributes
    ----------
    on_gpus : a copy of the index on all GPUs; None where there is none.
    """

    def __init__(self, index: Any, scan: ExactScan, *, flat: bool) -> None:
        self._index = index
        self._faiss = load_faiss()
        self.on_gpus = copy_to_gpus(self._faiss, index)
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
        on_gpus = self.on_gpus is not None and wanted <= MOST_CANDIDATES
        found = _ask(self.on_gpus if on_gpus else self._index, queries, wanted)
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
