"""A whole build against a bare loop that only fills a FAISS index.

The bare loop, in batches of as many documents as ``Index.create`` takes: joins title and text,
encodes, ``IndexFlatIP.add``; at the end one ``faiss.write_index``. It keeps no document and no id,
checks nothing, waits for no disk and holds all vectors in memory. Both are handed the same
documents, which lie in memory, and the same encoder.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.lab.speed.generated import ENCODERS, make_documents
from benchmarks.lab.speed.interleaved import Contestant, Timings, ratios, spread, take_turns
from benchmarks.report.markdown import table_lines
from indexes import Index, IndexConfig
from indexes.backends.faiss import load_faiss
from retrieval import Document, Encoder

BARE = "bare loop"
PLAIN = "Index.create"
FIELDS = "Index.create, 2 fields"


@dataclass(frozen=True)
class OverheadConfig:
    """What is compared; see ``python -m benchmarks.lab.speed.indexing overhead --help``."""

    documents: int = 40_000
    dimension: int = 576
    characters: int = 600
    rounds: int = 5
    seconds: float = 600.0


def measure_overhead(
    encoder: Encoder, config: OverheadConfig, folder: Path, notify: Callable[[str], None]
) -> tuple[Timings, Timings]:
    """Return wall seconds and processor seconds (user and system, all threads) of each contestant.

    ``folder`` is where all of them write, and empty again afterwards.
    """
    plain = list(make_documents(config.documents, config.characters, with_metadata=False))
    fields = list(make_documents(config.documents, config.characters))
    runs: dict[str, Callable[[Path], None]] = {
        BARE: partial(run_bare, encoder, plain),
        PLAIN: partial(run_pipeline, encoder, plain),
        FIELDS: partial(run_pipeline, encoder, fields),
    }
    place = folder / "work"

    def work(run: Callable[[Path], None]) -> None:
        place.mkdir()
        run(place)

    def tidy() -> None:
        shutil.rmtree(place)
        os.sync()  # the next one does not wait for what this one has written

    for run in (run_bare, run_pipeline):  # what is loaded once
        work(partial(run, encoder, fields[:64]))
        tidy()
    wall = take_turns(
        [Contestant(name, partial(work, run), tidy=tidy) for name, run in runs.items()],
        rounds=config.rounds,
        budget_seconds=config.seconds,
        notify=notify,
    )
    return wall, Timings(wall.processor)


def run_bare(encoder: Encoder, documents: Sequence[Document], folder: Path) -> None:
    """Encode and add, a batch at a time, then write the index."""
    faiss = load_faiss()
    batch = IndexConfig().batch_documents
    index = faiss.IndexFlatIP(encoder.dimension)
    for start in range(0, len(documents), batch):
        texts = [document.content for document in documents[start : start + batch]]
        index.add(encoder.encode_documents(texts))
    faiss.write_index(index, str(folder / "index.faiss"))


def run_pipeline(encoder: Encoder, documents: Sequence[Document], folder: Path) -> None:
    """Build an index folder of vectors; the bare loop has no words either."""
    Index.create(folder / "index", encoder, documents, IndexConfig(arms=["dense"]))


def overhead_lines(
    config: OverheadConfig, folder: Path, notify: Callable[[str], None]
) -> list[str]:
    """Measure with every encoder, and return a table in Markdown.

    Ratios are those of documents per second to the bare loop's, medians over rounds with the lowest
    and the highest round in brackets.
    """
    rate, against = "documents/s", f"x {BARE}"
    heads = ["encoder", "contestant", rate, against, f"{rate} of processor time", against]
    rows = []
    for name, make in ENCODERS.items():
        notify(f"Encoder {name}")
        wall, processor = measure_overhead(make(config.dimension), config, folder, notify)
        for contestant in wall.seconds:
            cells = [name, contestant]
            for timings in (wall, processor):
                median = statistics.median(timings.seconds[contestant])
                ratio = "1" if contestant == BARE else spread(ratios(timings, contestant, BARE))
                cells += [f"{config.documents / median:,.0f}", ratio]
            rows.append(cells)
    return list(table_lines(heads, rows, names=2))
