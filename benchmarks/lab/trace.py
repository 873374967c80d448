"""Counts the files of this repository that a command runs through.

    python -m benchmarks.lab.trace index two.jsonl --out /tmp/index
    python -m benchmarks.lab.trace search /tmp/index "a question"

A file counts when one of its functions is called; what runs while it is imported does not count.
A move is a call from a function in one of our files to a function in another of them.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("retrieval", "embedder", "indexes", "benchmarks", "cli")


class Trace:
    """Notes every call of a function in the repository's packages, in all threads.

    Attributes
    ----------
    calls : calls by file, relative to the repository.
    moves : calls from one file to another, by pair.
    imported : files whose module body ran.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.moves: Counter[tuple[str, str]] = Counter()
        self.imported: set[str] = set()
        self._ours: dict[str, str] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note one event of ``sys.setprofile``."""
        if event != "call":
            return
        name = self._name(frame)
        if not name:
            return
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # the body of a module or a class
            self.imported.add(name)
            return
        caller = self._caller(frame)
        if caller is not None:
            self.calls[name] += 1
            if caller not in ("", name):
                self.moves[caller, name] += 1

    def _caller(self, frame: FrameType) -> str | None:
        """Return our nearest file below this call, "" for none; None while a file is imported."""
        nearest = ""
        below = frame.f_back
        while below is not None and below.f_code.co_filename != __file__:
            name = self._name(below)
            if name and not below.f_code.co_flags & inspect.CO_OPTIMIZED:
                return None
            nearest = nearest or name
            below = below.f_back
        return nearest

    def _name(self, frame: FrameType) -> str:
        """Return the file of a frame relative to the repository, "" for any other file."""
        path = frame.f_code.co_filename
        if path not in self._ours:
            inside = path.startswith(f"{ROOT}/")
            name = path[len(str(ROOT)) + 1 :] if inside else ""
            self._ours[path] = name if name.partition("/")[0] in PACKAGES else ""
        return self._ours[path]

    def report(self) -> str:
        """Return the counts, and the files in the order of their calls."""
        lines = [
            f"{len(self.calls)} files, {sum(self.moves.values())} moves between files, "
            f"{len(self.imported)} files imported",
            *(f"{count:>8,}  {name}" for name, count in self.calls.most_common()),
        ]
        return "\n".join(lines)


def main() -> None:
    """Run a command line of millpond in this process and print what it ran through."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        from cli.app import app

        app(sys.argv[1:], prog_name="millpond")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        print(trace.report(), file=sys.stderr)


if __name__ == "__main__":
    main()
