"""What the attacks share: a model that hashes, documents, a table, and child processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from benchmarks.lab.speed.generated import TextHashEncoder
from retrieval import Document

BACKENDS = ("faiss", "qdrant")
CHILD_SECONDS = 120.0
MOST_SHOWN = 20
FILE_CALLS = {
    *("open", "write", "writelines", "flush", "fsync", "truncate", "close"),
    *("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir"),
}
PRELOADED = (
    *("faiss", "tantivy", "qdrant_edge", "pyarrow.dataset"),
    *("indexes", "indexes.backends.qdrant.edge", "indexes.lexical.arm"),
    *("benchmarks.lab.attack.kill", "benchmarks.lab.attack.flip"),
)
"""Imported once and not in each child."""


MODEL = TextHashEncoder(16)
"""Hashes texts, so that every right answer is known."""


def make_documents(count: int, prefix: str = "d", version: str = "text") -> list[Document]:
    """Return documents d0 and up with a number each."""
    return [
        Document(f"{prefix}{n}", f"{version} {n} of {prefix}", metadata={"n": n})
        for n in range(count)
    ]


@dataclass
class Tally:
    """How often each test was done, and what failed."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, test: str, failure: str = "") -> None:
        """Count a test; ``failure`` is empty where all was as promised."""
        self.done[test] += 1
        if failure:
            self.failures.append((test, failure))

    def show(self) -> str:
        """Return a table of test, count and failures, and the failures below it."""
        failed = Counter(test for test, _ in self.failures)
        lines = ["| test | count | failures |", "|---|---:|---:|"]
        lines += [f"| {test} | {n:,} | {failed[test]} |" for test, n in sorted(self.done.items())]
        lines.append(f"| all | {self.done.total():,} | {len(self.failures)} |")
        lines += [f"- {test}: {what}" for test, what in self.failures[:MOST_SHOWN]]
        if len(self.failures) > MOST_SHOWN:
            lines.append(f"- and {len(self.failures) - MOST_SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Attack:
    """How long an attack lasts, and from where its chances come.

    Attributes
    ----------
    seed : of every choice.
    count : the most tests.
    seconds : after which no test begins.
    """

    seed: int
    count: int
    seconds: float
    started: float = field(default_factory=time.monotonic)

    def goes_on(self, done: int) -> bool:
        """Return whether another test is to begin."""
        return done < self.count and time.monotonic() - self.started < self.seconds


def run_child(work: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what ``work`` returned in a process of its own, and how it ended otherwise.

    The second is "", "killed by signal N", "hung", or the exception in one line.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(CHILD_SECONDS):
            process.kill()
            return None, "hung"
        found: tuple[Any, str] = ours.recv()
    except EOFError:
        found = (None, "")
    finally:
        process.join()
        ours.close()
    if process.exitcode and process.exitcode < 0:
        return None, f"killed by signal {-process.exitcode}"
    return found


def _answer(place: Connection, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        answer = (work(*arguments), "")
    except BaseException as error:
        answer = (None, f"{type(error).__name__}: {' '.join(str(error).split())}")
    place.send(answer)


class Moments:
    """Counts moments, all of them and those that may change files; kills at one if told to.

    A moment is a call of a function, in Python or in C, by the thread that ``watch`` was called in;
    the n-th is the same on every machine.
    """

    def __init__(self, kill_at: int | None = None, files_only: bool = False) -> None:
        self.counts = {False: 0, True: 0}
        self._kill_at, self._files_only = kill_at, files_only

    def watch(self) -> None:
        """Begin to count."""
        sys.setprofile(self._meet)

    def end(self) -> None:
        """Stop counting."""
        sys.setprofile(None)

    def _meet(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "c_call"):
            return
        self.counts[False] += 1
        self.counts[True] += event == "c_call" and argument.__name__ in FILE_CALLS
        if self.counts[self._files_only] == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
