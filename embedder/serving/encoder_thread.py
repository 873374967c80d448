"""The one thread in which models compute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["EncoderThread"]

T = TypeVar("T")


class EncoderThread:
    """A thread in which models are loaded, tried and run, and nothing else.

    Each thread that computes with torch on a CPU gets helpers of its own, as many as there are
    cores. With more of them than cores, OpenMP lets them sleep after every step, where they would
    have waited for the next one: on 2 cores a model that was loaded in one thread and ran in
    another took a quarter longer.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="millpond-encoder", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> T:
        """Return what ``work`` gives in this thread, or raise what it raises."""
        return self.post(work).result()

    def post(self, work: Callable[[], T]) -> Future[T]:
        """Do ``work`` in this thread when all that was given to it before is done."""
        future: Future[T] = Future()
        self._calls.put((work, future))
        return future

    def _work(self) -> None:
        while True:
            work, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # reaches whoever asked
                future.set_exception(error)
            del work, future  # neither a model nor an error is kept while the thread waits
