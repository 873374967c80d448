"""Ctrl-C while training: the step is finished and kept, a second Ctrl-C ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopRequest"]


class StopRequest:
    """Turns the first SIGINT inside its ``with`` block into a wish that is asked about.

    Outside the main thread, and where SIGINT is ignored or handled by somebody else, it changes
    nothing.

    Parameters
    ----------
    notify : receives one line when the wish arrives.

    Attributes
    ----------
    asked : whether SIGINT arrived.
    """

    def __init__(self, notify: Callable[[str], object]) -> None:
        self.asked = False
        self._notify = notify
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        """Take SIGINT over from Python's own handler."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give SIGINT back."""
        self._give_back()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._give_back()
        self._notify("Finishing this step, then writing a checkpoint; Ctrl-C again ends at once.")

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
