"""What a search costs besides FAISS: ``Index.search`` against a loop that does no more.

The loop searches the same index file, read into memory, and takes the ids and texts of its hits
from lists. ``Index.search`` reads them from the folder, computes every score again from the stored
vectors, and settles ties by id. Both search a graph equally wide; recall is printed for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.lab.speed.generated import make_documents
from benchmarks.lab.speed.index_throughput import Table, find_recall, make_clusters
from benchmarks.lab.speed.interleaved import Contestant, Timings, ratios, spread, take_turns
from benchmarks.report.markdown import table_lines
from indexes import Index, IndexConfig
from indexes.backends import faiss as build
from indexes.backends.faiss import load_faiss
from retrieval import Document, Vectors

KINDS = {"Flat": "Flat", "HNSW": "HNSW32"}
Search: TypeAlias = Callable[[Vectors, int], object]

BARE = "bare loop"
OURS = "Index.search"


@dataclass(frozen=True)
class SearchConfig:
    """What is built and asked; see ``python -m benchmarks.lab.speed.indexing search --help``."""

    documents: int = 50_000
    dimension: int = 384
    characters: int = 200
    queries: int = 256
    batch: int = 256
    breadth: int = 128
    k: int = 10
    rounds: int = 5
    seconds: float = 600.0


class BareIndex:
    """The least that finds ids and texts: FAISS in memory, and two lists."""

    def __init__(self, path: Path, documents: list[Document]) -> None:
        self._index: Any = load_faiss().read_index(str(path))
        self._ids = [document.doc_id for document in documents]
        self._texts = [document.text for document in documents]

    def search(self, queries: Vectors, k: int) -> list[list[tuple[str, float, str]]]:
        """Return id, score and text of the k nearest of each query."""
        scores, rows = self._index.search(queries, k)
        return [
            [
                (self._ids[row], score, self._texts[row])
                for row, score in zip(found, values, strict=True)
            ]
            for found, values in zip(rows.tolist(), scores.tolist(), strict=True)
        ]


def search_lines(config: SearchConfig, folder: Path, notify: Callable[[str], None]) -> list[str]:
    """Build both indexes below ``folder``, search them, and return a table in Markdown.

    The two take turns; ratios are medians over rounds, with the lowest and highest in brackets.
    """
    documents = list(make_documents(config.documents, config.characters))
    queries = make_clusters(config.queries, config.dimension, seed=1)
    recall = f"recall@{config.k}"
    heads = ["index", "queries", f"{BARE}, queries/s", f"{OURS}, queries/s", "ratio"]
    heads += [f"{recall}, loop", recall]
    rows = []
    truth: list[set[str]] = []
    for name, index in _build_all(config, documents, folder):
        bare = BareIndex(index.manifest.place(index.folder, "index"), documents)
        found = [{name for name, _, _ in hits} for hits in bare.search(queries, config.k)]
        ours = [{hit.doc_id for hit in hits} for hits in index.search(queries, config.k)]
        truth = truth or ours  # of Flat, which comes first
        recalls = [f"{find_recall(truth, of):.4f}" for of in (found, ours)]
        for batch in (1, config.batch):
            notify(f"{name}, {batch} at a time")
            timings = _time(bare, index, queries, batch, config, notify)
            rates = [
                f"{len(queries) / statistics.median(timings.seconds[one]):,.0f}"
                for one in (BARE, OURS)
            ]
            label = "one by one" if batch == 1 else f"in batches of {batch}"
            cells = [name, label, *rates, spread(ratios(timings, OURS, BARE)), *recalls]
            rows.append(cells)
    return list(table_lines(heads, rows, names=2))


def _build_all(
    config: SearchConfig, documents: list[Document], folder: Path
) -> Iterator[tuple[str, Index]]:
    vectors = make_clusters(config.documents, config.dimension, seed=0)
    flat = folder / "Flat"
    Index.create(flat, Table(vectors), documents, IndexConfig(corpus_name="clusters"))
    yield "Flat", Index.open(flat)
    for name, factory in KINDS.items():
        if name != "Flat":
            with _breadth(config.breadth):
                Index.open(flat).reindex(out=folder / name, factory=factory)
            yield name, Index.open(folder / name)


@contextmanager
def _breadth(wanted: int) -> Iterator[None]:
    """Let graphs be built to be searched so wide."""
    before = build.HNSW_SEARCH_BREADTH
    build.HNSW_SEARCH_BREADTH = wanted
    try:
        yield
    finally:
        build.HNSW_SEARCH_BREADTH = before


def _time(
    bare: BareIndex,
    index: Index,
    queries: Vectors,
    batch: int,
    config: SearchConfig,
    notify: Callable[[str], None],
) -> Timings:
    def ask(search: Search) -> None:
        for start in range(0, len(queries), batch):
            search(queries[start : start + batch], config.k)

    contestants: dict[str, Search] = {BARE: bare.search, OURS: index.search}
    for search in contestants.values():
        search(np.ascontiguousarray(queries[:1]), config.k)  # opens files, maps pages
    return take_turns(
        [Contestant(name, partial(ask, search)) for name, search in contestants.items()],
        rounds=config.rounds,
        budget_seconds=config.seconds / (2 * len(KINDS)),
        notify=notify,
    )
