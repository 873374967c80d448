"""How it is run: signals, connections that no client can use up, indexes that others change."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from embedder.serving.metrics import Metrics, log_event
from embedder.serving.served import ServedIndex
from embedder.serving.settings import ServerSettings
from retrieval.errors import FingerprintError, MillpondError, SourceNotFoundError

_LOG = logging.getLogger("millpond.serve")

SWITCH_SECONDS = 0.0005
IDLE_SECONDS = 75  # above the minute after which proxies give up idle connections
STALLED_SECONDS = 300
HEAD_BYTES = 65_536
LOOK_SECONDS = 1.0
_BACKLOG = 128
_OTHER_FILES = 2 * _BACKLOG
"""Kept free of connections: files of indexes, and what is accepted in one go."""


def run_app(app: FastAPI, listener: socket.socket) -> None:
    """Answer requests at a listening socket until SIGINT or SIGTERM; finish what was accepted.

    A second SIGINT ends at once.
    """
    # A burst of replies would keep Python's lock from the encoder for 5 ms after each of its steps.
    sys.setswitchinterval(SWITCH_SECONDS)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises SIGTERM once more after its graceful stop, which would be exit code 143.
        signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(make_config(app)).run(sockets=[listener])


def make_config(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn runs an app of ``build_app``."""
    settings: ServerSettings = app.state.server.settings

    class Limited(Connection):
        most = min(settings.connections, _most_files())
        head_seconds = settings.head_seconds

    return uvicorn.Config(
        app,
        http=Limited,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        backlog=_BACKLOG,
        ws="none",
        lifespan="on",
    )


class Connection(HttpToolsProtocol):
    """A connection that has to say something, and makes room where there are too many.

    It is closed where the head of a request does not arrive in ``head_seconds`` (``IDLE_SECONDS``
    after an answer), is longer than ``HEAD_BYTES``, or where the client does not read its answer.
    Where ``most`` are open, the one that has waited longest for its client is closed for a new
    one; a new one is only refused where all of them are being answered.
    """

    most: int
    head_seconds: float

    waiting_since: float | None = None
    """Since when the client owes a request, or the rest of one; None while it is answered."""
    _head_bytes = 0
    _in_head = True
    _silence: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait(self.head_seconds)
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waiting."""
        for timer in (self._silence, self._stall):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, and give up on a head that does not end."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is longer than {HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        """Leave the rest of the request to the limits of its body."""
        self._in_head, self._head_bytes = False, 0
        if self._silence is not None:
            self._silence.cancel()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the client owes nothing."""
        self._in_head = True
        if not self.cycle.response_complete:
            self.waiting_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there already."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait(IDLE_SECONDS)

    def pause_writing(self) -> None:
        """Give the client a while to read."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._stall is not None:
            self._stall.cancel()
        super().resume_writing()

    def _wait(self, seconds: float) -> None:
        self.waiting_since = self.loop.time()
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self.loop.call_later(seconds, self.transport.abort)

    def _make_room(self) -> None:
        """Close the connection that has waited longest; this one where no other waits."""
        waiting = [
            one
            for one in self.connections
            if isinstance(one, Connection) and one.waiting_since is not None
        ]
        longest = min(waiting, key=lambda one: one.waiting_since or 0.0)
        self.connections.discard(longest)
        longest.transport.abort()


def _most_files() -> int:
    """Return how many connections the limit on open files leaves room for."""
    if importlib.util.find_spec("resource") is None:  # Windows
        return sys.maxsize
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(16, soft - _OTHER_FILES)


class IndexWatch:
    """Serves what other processes make of indexes, looking at each once a second at most.

    A request keeps the index that it began with. Where a newer version cannot be taken over, the
    earlier one is served on, and ``troubles`` says why in a clause, by name.

    Parameters
    ----------
    indexes : what is served, by name; the values are replaced.
    """

    def __init__(self, indexes: dict[str, ServedIndex], metrics: Metrics) -> None:
        self.troubles: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._indexes = indexes
        self._metrics = metrics
        self._looking = {name: threading.Lock() for name in indexes}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="millpond-watch", daemon=True)
        for name, index in indexes.items():
            metrics.set_index(name, index.version, len(index.index))
            metrics.set_behind(name, False)

    def start(self) -> None:
        """Begin to look."""
        if any(index.follow is not None for index in self._indexes.values()):
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = LOOK_SECONDS
        while not self._ended.wait(pause):
            started = time.monotonic()
            for name in self._indexes:
                self.look(name)
            # What takes long to fail, such as a large index that is damaged, is seldom tried.
            pause = max(LOOK_SECONDS, 10 * (time.monotonic() - started))

    def look(self, name: str) -> None:
        """Serve the newer version of an index, if there is one."""
        with self._looking[name]:
            follow = self._indexes[name].follow
            if follow is None:
                return
            try:
                newer = follow()
            except Exception as error:
                if not isinstance(error, MillpondError):
                    _LOG.exception("index_behind", extra={"facts": {"index": name}})
                self.troubles[name] = _explain(error)
                if self._said.get(name) != str(error):
                    log_event("index_behind", index=name, error=str(error))
                self._said[name] = str(error)
            else:
                self.troubles.pop(name, None)
                self._said.pop(name, None)
                if newer is not None:
                    self._metrics.set_index(name, newer.version, len(newer.index))
                    self._indexes[name] = newer
                    log_event("index_reopened", index=name, version=newer.version)
            self._metrics.set_behind(name, name in self.troubles)


def _explain(error: Exception) -> str:
    """Return why a newer version is not served, without naming a place on this machine."""
    if isinstance(error, FingerprintError):
        return "another model made its newer version, so the earlier one is served"
    if isinstance(error, SourceNotFoundError):
        return "its folder is gone, so what had been opened is served"
    return "its newer version cannot be opened, so the earlier one is served; the log says why"
