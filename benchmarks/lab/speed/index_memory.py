"""Peak memory of a build, small corpus against large.

Each build runs in a process of its own, which makes its documents as it goes. The parent samples
its resident memory every 5 ms:

- anonymous memory (``RssAnon``): what the process itself holds, and what runs out.
- file pages (``RssFile``, and ``RssShmem`` of files in memory): pages of mapped files, including
  libraries. The system takes them back when it needs memory.
- both together, at their peak.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil

from benchmarks.lab.speed.generated import TextHashEncoder, make_documents
from benchmarks.report.markdown import table_lines
from indexes import Index, IndexConfig
from retrieval.errors import UsageError

LOOK_SECONDS = 0.005
MIB = 2**20


@dataclass(frozen=True)
class MemoryConfig:
    """What is built; see ``python -m benchmarks.lab.speed.indexing memory --help``."""

    small: int = 100_000
    large: int = 1_000_000
    dimension: int = 64
    characters: int = 200
    factory: str = "Flat"


@dataclass(frozen=True)
class Memory:
    """Peak bytes: anonymous, file pages, and both together."""

    anonymous: int
    file_pages: int
    together: int


def measure_memory(config: MemoryConfig, documents: int, folder: Path) -> Memory:
    """Return the peak memory of a new process that indexes so many documents.

    Raises
    ------
    UsageError : this is not Linux, or the build failed; the build says how.
    """
    if not psutil.LINUX:
        raise UsageError("Anonymous memory and file pages are told apart on Linux. Run this there.")
    with tempfile.TemporaryDirectory(prefix="millpond-memory-", dir=folder) as place:
        child = multiprocessing.get_context("spawn").Process(
            target=build, args=(config, documents, Path(place))
        )
        child.start()
        watched, peak = psutil.Process(child.pid), Memory(0, 0, 0)
        while child.is_alive():
            found = watched.memory_info()  # zeros of a process that has just ended
            seen = (found.rss - found.shared, found.shared, found.rss)
            peak = Memory(*map(max, astuple(peak), seen))
            time.sleep(LOOK_SECONDS)
        child.join()
    if child.exitcode:
        raise UsageError(f"The build of {documents:,} documents failed; its message is above.")
    return peak


def build(config: MemoryConfig, documents: int, folder: Path) -> None:
    """Index generated documents; what the process of ``measure_memory`` does."""
    Index.create(
        folder / "index",
        TextHashEncoder(config.dimension),
        make_documents(documents, config.characters),
        IndexConfig(factory=config.factory, corpus_name="generated"),
    )


def memory_lines(config: MemoryConfig, folder: Path) -> list[str]:
    """Measure both sizes, and return a table in Markdown."""
    small = measure_memory(config, config.small, folder)
    large = measure_memory(config, config.large, folder)
    titles = ("anonymous (RssAnon)", "file pages (RssFile)", "together")
    what = f"{config.factory}, D={config.dimension}"
    rows = [
        [title, f"{before / MIB:.1f} MiB", f"{after / MIB:.1f} MiB", f"{after / before:.3f}"]
        for title, before, after in zip(titles, astuple(small), astuple(large), strict=True)
    ]
    more = (large.anonymous - small.anonymous) / (config.large - config.small)
    vectors = 4 * config.dimension
    return [
        *table_lines([what, f"{config.small:,}", f"{config.large:,}", "ratio"], rows),
        "",
        f"{more:.1f} bytes of anonymous memory for each document more (vector: {vectors})",
    ]
