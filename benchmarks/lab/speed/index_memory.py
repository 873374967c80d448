"""Peak memory of a build, small corpus against large.

Each build runs in a process of its own, which makes its documents as it goes. The parent reads from
``/proc``:

- anonymous memory (``RssAnon``, sampled every 5 ms): what the process itself holds, and what runs
  out.
- file pages (``RssFile``, likewise; ``RssShmem`` of files in memory): pages of mapped files,
  including libraries. The system takes them back when it needs memory.
- the peak of both together (``VmHWM``, kept by the system, so nothing is missed).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.lab.speed.generated import TextHashEncoder, make_documents
from retrieval.errors import UsageError

TARGET = 1.15
LOOK_SECONDS = 0.005
MIB = 2**20
WATCHED = ("RssAnon", "RssFile", "RssShmem", "VmHWM")


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
    UsageError : this is not Linux, or the build failed; says how.
    """
    if not Path("/proc/self/status").exists():
        raise UsageError("Memory is read from /proc, which only Linux has. Run this on Linux.")
    with tempfile.TemporaryDirectory(prefix="millpond-memory-", dir=folder) as place:
        task = {**asdict(config), "documents": documents, "folder": place}
        command = [sys.executable, "-m", "benchmarks.lab.speed.index_memory", json.dumps(task)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
            heights = dict.fromkeys(WATCHED, 0)
            while child.poll() is None:
                for name, size in _read_status(child.pid):
                    heights[name] = max(heights[name], size)
                time.sleep(LOOK_SECONDS)
            assert child.stderr is not None
            problem = child.stderr.read().decode(errors="replace").strip()
    if child.returncode or not heights["VmHWM"]:
        last = problem.splitlines()[-1:] or ["it said nothing"]
        raise UsageError(f"The build of {documents:,} documents failed: {last[0]}")
    files = heights["RssFile"] + heights["RssShmem"]
    return Memory(heights["RssAnon"], files, heights["VmHWM"])


def _read_status(process: int) -> Iterator[tuple[str, int]]:
    """Yield what is watched, in bytes; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name in WATCHED:
            yield name, int(value.split()[0]) * 1024


def build(config: MemoryConfig, documents: int, folder: Path) -> None:
    """Index generated documents; what the process of ``measure_memory`` does."""
    from indexes import Index, IndexConfig

    Index.create(
        folder / "index",
        TextHashEncoder(config.dimension),
        make_documents(documents, config.characters),
        IndexConfig(factory=config.factory, corpus_name="generated"),
    )


def memory_lines(config: MemoryConfig, folder: Path) -> list[str]:
    """Measure both sizes, and return a table in Markdown and a verdict."""
    small = measure_memory(config, config.small, folder)
    large = measure_memory(config, config.large, folder)
    lines = [
        f"| {config.factory}, D={config.dimension} | {config.small:,} | {config.large:,} | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for title, before, after in (
        ("anonymous (RssAnon)", small.anonymous, large.anonymous),
        ("file pages (RssFile)", small.file_pages, large.file_pages),
        ("together (VmHWM)", small.together, large.together),
    ):
        sizes = f"{before / MIB:.1f} MiB | {after / MIB:.1f} MiB"
        lines.append(f"| {title} | {sizes} | {after / before:.3f} |")
    more = (large.anonymous - small.anonymous) / (config.large - config.small)
    vectors = 4 * config.dimension
    lines += [
        "",
        f"{more:.1f} bytes of anonymous memory for each document more (vector: {vectors})",
    ]
    for title, ratio in (
        ("anonymous", large.anonymous / small.anonymous),
        ("together", large.together / small.together),
    ):
        verdict = "reached" if ratio <= TARGET else "not reached"
        lines.append(f"{title}: {ratio:.3f}, at most {TARGET} {verdict}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Build what the one argument, JSON, says; ``measure_memory`` calls this."""
    parser = argparse.ArgumentParser(description="A process of the memory benchmark.")
    parser.add_argument("task", type=json.loads)
    task = parser.parse_args(arguments).task
    documents, folder = task.pop("documents"), Path(task.pop("folder"))
    build(MemoryConfig(**task), documents, folder)


if __name__ == "__main__":
    main()
