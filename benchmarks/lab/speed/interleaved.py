"""Contestants that take turns in one process, so that a busy machine is busy for all of them."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.optional import read_versions
from benchmarks.report.markdown import table_lines
from retrieval.errors import MillpondError

_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "openvino",
    "numpy",
    "pyarrow",
    "faiss-cpu",
    "qdrant-edge-py",
)


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes
    ----------
    run : does ``share`` of the work once; its result is not looked at.
    share : of all the work, 0 to 1; the time is divided by it. Below 1 only where a part takes
        its share of the time, as where texts are batched in the order they come.
    tidy : what is done afterwards and not timed.
    """

    name: str
    run: Callable[[], object]
    share: float = 1.0
    tidy: Callable[[], object] = lambda: None


@dataclass
class Timings:
    """Seconds by contestant, one entry a round; entry i of all belongs to round i.

    ``processor`` has the same in processor time, user and system, of all threads.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Rounds that all contestants finished."""
        return min((len(found) for found in self.seconds.values()), default=0)


def take_turns(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    budget_seconds: float,
    notify: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Return the times of ``rounds`` rounds, or of as many as fit in the budget; at least 1.

    In each round every contestant does its share of the work once, each time another one first.
    """
    names = [contestant.name for contestant in contestants]
    timings = Timings({name: [] for name in names}, {name: [] for name in names})
    start = clock()
    for number in range(rounds):
        began = clock()
        if number and began - start + (began - start) / number > budget_seconds:
            notify(f"Round {number + 1} would not fit in {budget_seconds:.0f} s")
            break
        turn = number % len(contestants)
        for contestant in [*contestants[turn:], *contestants[:turn]]:
            before, busy = clock(), time.process_time()
            contestant.run()
            taken, busy = clock() - before, time.process_time() - busy
            contestant.tidy()
            timings.seconds[contestant.name].append(taken / contestant.share)
            timings.processor[contestant.name].append(busy / contestant.share)
            part = f" for {contestant.share:.0%} of the work" if contestant.share < 1 else ""
            notify(f"Round {number + 1}: {contestant.name} took {taken:.1f} s{part}")
    return timings


def ratios(timings: Timings, name: str, against: str) -> list[float]:
    """Return the speed of ``name`` over that of ``against``, round by round."""
    pairs = zip(timings.seconds[against], timings.seconds[name], strict=True)
    return [theirs / own for theirs, own in pairs]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, with the lowest and highest value in brackets."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def format_table(
    timings: Timings, tokens: int, against: Sequence[str], extra: dict[str, dict[str, str]]
) -> list[str]:
    """Return the lines of a table in Markdown, one contestant a row.

    Ratios are medians over rounds, with the lowest and highest round in brackets.

    Parameters
    ----------
    tokens : that every contestant embeds in a round.
    against : contestants that the others are compared with.
    extra : further columns, title to contestant to cell.
    """
    titles = ["contestant", "tokens/s", *(f"x {name}" for name in against), *extra]
    rows = []
    for name, seconds in timings.seconds.items():
        row = [name, f"{tokens / statistics.median(seconds):.0f}"]
        for other in against:
            row.append("1.00" if name == other else spread(ratios(timings, name, other)))
        rows.append([*row, *(cells.get(name, "") for cells in extra.values())])
    return list(table_lines(titles, rows))


def print_lines(measure: Callable[[], Sequence[str]]) -> int:
    """Print the lines that ``measure`` returns, or what is wrong; return the exit code."""
    try:
        print("\n".join(measure()))
    except MillpondError as error:
        say(f"error: {error}")
        return 1
    return 0


def describe_machine() -> str:
    """Return one line: processor, cores, load, and the versions of what is compared."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    versions = read_versions(*_PACKAGES)
    return (
        f"{_processor()}, {os.cpu_count()} cores, OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}, load {load:.1f}; Python "
        f"{platform.python_version()}, {', '.join(f'{n} {v}' for n, v in versions.items())}"
    )


def _processor() -> str:
    """Return the processor's name and the instructions that matter for speed."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    lines = dict(line.partition(":")[::2] for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    flags = fields.get("flags", "").split()
    telling = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
    return " ".join([fields.get("model name", platform.machine()), *filter(flags.count, telling)])


def say(line: str) -> None:
    """Print a line to stderr at once."""
    print(line, file=sys.stderr, flush=True)
