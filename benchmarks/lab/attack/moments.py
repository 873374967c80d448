"""Kills a process at the n-th moment of its work, which is the same moment on every machine.

A moment is a call of a function, in Python or in C, by the thread that ``watch`` was called in.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

__all__ = ["Moments"]

FILE_CALLS = {
    *("open", "write", "writelines", "flush", "fsync", "truncate", "close"),
    *("mkdir", "rename", "replace", "link", "unlink", "remove", "rmdir"),
}


class Moments:
    """Counts moments, all of them and those that may change files; kills at one if told to."""

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
