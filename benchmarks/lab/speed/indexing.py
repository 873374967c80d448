"""What indexing costs besides embedding: memory, overhead, and the speed of the index types.

    python -m benchmarks.lab.speed.indexing memory
    python -m benchmarks.lab.speed.indexing overhead
    python -m benchmarks.lab.speed.indexing throughput
    python -m benchmarks.lab.speed.indexing search

Each prints the machine and a table in Markdown; docs/index-speed.md shows and explains them.
``--quick`` does the same in small within seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.lab.speed.index_memory import MemoryConfig, memory_lines
from benchmarks.lab.speed.index_overhead import OverheadConfig, overhead_lines
from benchmarks.lab.speed.index_search import SearchConfig, search_lines
from benchmarks.lab.speed.index_throughput import ThroughputConfig, throughput_lines
from benchmarks.lab.speed.interleaved import describe_machine, print_lines, say


@dataclass(frozen=True)
class _Command:
    """One benchmark: its options, what they are under ``--quick``, and what measures."""

    config: Any
    quick: Any
    summary: str
    lines: Callable[[Any, Path, Callable[[str], None]], list[str]]


COMMANDS = {
    "memory": _Command(
        MemoryConfig(),
        MemoryConfig(small=1_000, large=3_000, dimension=16),
        "memory of a build, small corpus against large",
        lambda config, folder, notify: memory_lines(config, folder),
    ),
    "overhead": _Command(
        OverheadConfig(),
        OverheadConfig(documents=1_000, dimension=64, rounds=2),
        "documents per second against a bare loop of faiss add",
        overhead_lines,
    ),
    "throughput": _Command(
        ThroughputConfig(),
        ThroughputConfig(documents=1_000, dimension=32, queries=16, lists=8, rounds=1),
        "documents and queries per second of the index types",
        throughput_lines,
    ),
    "search": _Command(
        SearchConfig(),
        SearchConfig(documents=1_000, dimension=32, queries=16, batch=8, rounds=2),
        "queries per second against a bare loop of faiss search",
        search_lines,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its table; return the exit code."""
    name, config, place = _parse(arguments)
    chosen = ", ".join(f"{option} {value}" for option, value in asdict(config).items())

    def measure() -> list[str]:
        with tempfile.TemporaryDirectory(prefix="millpond-indexing-", dir=place) as folder:
            lines = COMMANDS[name].lines(config, Path(folder), say)
        return [f"{name}: {chosen}", describe_machine(), "", *lines]

    return print_lines(measure)


def _parse(arguments: Sequence[str] | None) -> tuple[str, Any, Path | None]:
    """Return the benchmark's name, its config, and where it may write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="name", required=True)
    for name, command in COMMANDS.items():
        options = commands.add_parser(name, help=command.summary, description=command.summary)
        for item in fields(command.config):
            value = getattr(command.config, item.name)
            options.add_argument(f"--{item.name}", type=type(value), help=f"default: {value}")
        options.add_argument("--folder", type=Path, help="where to write; default: TMPDIR")
        options.add_argument("--quick", action="store_true", help="in small, to see that it runs")
    found = vars(parser.parse_args(arguments))
    name, place, quick = found.pop("name"), found.pop("folder"), found.pop("quick")
    command = COMMANDS[name]
    given = {option: value for option, value in found.items() if value is not None}
    return name, replace(command.quick if quick else command.config, **given), place


if __name__ == "__main__":
    raise SystemExit(main())
