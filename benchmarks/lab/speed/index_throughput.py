"""Documents and queries per second of the index types that a folder can hold, with their recall.

The vectors are random clusters, embedded by nobody. All indexes are built of the same shards with
``reindex``: checks, checksums, the wait for the disk and the recall measurement of an approximate
index are part of it. Searching is ``Index.search``, the texts of the hits included.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lab.speed.generated import make_documents
from benchmarks.lab.speed.interleaved import Contestant, Timings, take_turns
from benchmarks.report.markdown import table_lines
from indexes import Index, IndexConfig
from retrieval import Fingerprint, Vectors
from retrieval.scores import unit_rows

KINDS = {
    "FAISS Flat": ("faiss", "Flat"),
    "FAISS HNSW32": ("faiss", "HNSW32"),
    "FAISS IVF": ("faiss", "IVF{lists},Flat"),
    "Qdrant Edge Flat": ("qdrant", "Flat"),
    "Qdrant Edge HNSW": ("qdrant", "HNSW"),
}
EXACT = "FAISS Flat"
CLUSTERS = 500
SPREAD = 0.7
BATCHES = (1, 256)


@dataclass(frozen=True)
class ThroughputConfig:
    """What is built and asked; see ``benchmarks.lab.speed.indexing throughput --help``."""

    documents: int = 50_000
    dimension: int = 384
    characters: int = 200
    queries: int = 256
    lists: int = 256
    k: int = 10
    rounds: int = 3
    seconds: float = 600.0


@dataclass(frozen=True)
class _Built:
    index: Index
    seconds: float
    busy_seconds: float


class Table:
    """An encoder that hands out prepared vectors in order."""

    def __init__(self, vectors: Vectors) -> None:
        self.dimension = int(vectors.shape[1])
        self.fingerprint = Fingerprint(
            "clusters", {"model": "clusters", "rows": len(vectors), "normalize": True}
        )
        self._vectors, self._next = vectors, 0

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return the next len(texts) rows."""
        self._next += len(texts)
        return self._vectors[self._next - len(texts) : self._next]

    encode_queries = encode_documents


def make_clusters(count: int, dimension: int, *, seed: int) -> Vectors:
    """Return float32 (count, D) of length 1: random centres, with noise 0.7 times as long.

    The centres are the same for every seed.
    """
    centres = unit_rows(np.random.default_rng(0).standard_normal((CLUSTERS, dimension)))
    random = np.random.default_rng([1, seed])
    noise = unit_rows(random.standard_normal((count, dimension)))
    return unit_rows(centres[random.integers(0, CLUSTERS, count)] + SPREAD * noise)


def throughput_lines(
    config: ThroughputConfig, folder: Path, notify: Callable[[str], None]
) -> list[str]:
    """Build and search every kind below ``folder``, and return a table in Markdown.

    Every rate stands twice: on the clock, and by processor time (user and system, all threads).
    Each kind is built once; searches take turns, and their medians over rounds are shown. Recall is
    the share of the true k nearest, of an exact FAISS search, that are found.
    """
    built = _build_all(config, folder, notify)
    queries = make_clusters(config.queries, config.dimension, seed=1)
    timings = [_search_all(built, queries, batch, config, notify) for batch in BATCHES]
    truth = _ids(built[EXACT].index, queries, config.k)
    heads = ["index", "documents/s built", "processor", "queries/s, one by one", "processor"]
    heads += ["in batches of 256", "processor", f"recall@{config.k}"]
    rows = []
    for name, one in built.items():
        cells = [name]
        cells += [f"{config.documents / spent:,.0f}" for spent in (one.seconds, one.busy_seconds)]
        for wall, processor in timings:
            medians = [statistics.median(found.seconds[name]) for found in (wall, processor)]
            cells += [f"{config.queries / median:,.0f}" for median in medians]
        cells.append(f"{find_recall(truth, _ids(one.index, queries, config.k)):.3f}")
        rows.append(cells)
    return list(table_lines(heads, rows))


def _build_all(
    config: ThroughputConfig, folder: Path, notify: Callable[[str], None]
) -> dict[str, _Built]:
    vectors = make_clusters(config.documents, config.dimension, seed=0)
    source = folder / "source"
    documents = make_documents(config.documents, config.characters)
    Index.create(source, Table(vectors), documents, IndexConfig(corpus_name="clusters"))
    built = {}
    for number, (name, (backend, factory)) in enumerate(KINDS.items()):
        target = folder / f"{number}"
        kind = factory.format(lists=config.lists)
        began, busy = time.perf_counter(), time.process_time()
        Index.open(source).reindex(out=target, backend=backend, factory=kind)
        busy, seconds = time.process_time() - busy, time.perf_counter() - began
        notify(f"{name}: built in {seconds:.1f} s, {busy:.1f} s of processor time")
        built[name] = _Built(Index.open(target), seconds, busy)
    return built


def _search_all(
    built: dict[str, _Built],
    queries: Vectors,
    batch: int,
    config: ThroughputConfig,
    notify: Callable[[str], None],
) -> tuple[Timings, Timings]:
    """Return wall seconds and processor seconds of all queries, by index."""

    def ask(index: Index) -> None:
        for start in range(0, len(queries), batch):
            index.search(queries[start : start + batch], config.k)

    for found in built.values():
        found.index.search(queries[:1], config.k)  # opens files, maps pages
    notify(f"Queries in batches of {batch}")
    wall = take_turns(
        [Contestant(name, partial(ask, found.index)) for name, found in built.items()],
        rounds=config.rounds,
        budget_seconds=config.seconds / len(BATCHES),
        notify=notify,
    )
    return wall, Timings(wall.processor)


def _ids(index: Index, queries: Vectors, k: int) -> list[set[str]]:
    answers = index.search(queries, k, with_text=False)
    return [{hit.doc_id for hit in answer} for answer in answers]


def find_recall(truth: Sequence[set[str]], found: Sequence[set[str]]) -> float:
    """Return the share of what is true that was found, over all queries."""
    hits = sum(len(true & given) for true, given in zip(truth, found, strict=True))
    return hits / sum(map(len, truth))
