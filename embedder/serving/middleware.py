"""What every request passes: an id, a log line, its time, and a limit on its body."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedder.serving.errors import ApiError, error_response
from embedder.serving.logs import log_event
from embedder.serving.metrics import Metrics

__all__ = ["BodyLimit", "Recorder"]

_LOG = logging.getLogger("millpond.serve")
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_ROUTES_OUTSIDE = "other"
"""The label of paths that lead nowhere: clients cannot make up labels."""


class Recorder:
    """Gives each request an id, logs and counts it, and answers 500 where the app raised.

    The client's ``X-Request-ID`` is kept where it is 1 to 128 plain characters; the answer
    carries the id in any case.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        started = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _LOG.exception("A request failed.", extra={"facts": {"request_id": request_id}})
            if not status:
                error = ApiError(500, f"The server failed on request {request_id}; see its log.")
                await error_response(scope["path"], error)(scope, receive, send_with_id)
        finally:
            self._record(scope, request_id, status or 499, time.monotonic() - started)

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or _ROUTES_OUTSIDE
        self._metrics.add_request(route, status, seconds)
        log_event(
            "request",
            request_id=request_id,
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(seconds, 4),
            **scope.get("millpond.facts", {}),
        )


class BodyLimit:
    """Reads each body before the app does: 413 where it is too long, 408 where it is too slow."""

    def __init__(self, app: ASGIApp, longest_bytes: int, seconds: float) -> None:
        self._app = app
        self._longest = longest_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            error = ApiError(408, f"The body did not arrive within {self._seconds:g} s.")
            await self._refuse(error, scope, receive, send)
            return
        if body is None:
            return
        if len(body) > self._longest:
            error = ApiError(
                413,
                f"The body is longer than {self._longest:,} bytes, which is what this server "
                f"accepts. Send fewer texts at a time.",
                "body_too_long",
            )
            await self._refuse(error, scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the body, or its start where it is too long; None where the client went away.

        As much again as the limit is read and dropped, because a client that is still sending
        would not see an answer.
        """
        body = bytearray()
        length = 0
        while length <= 2 * self._longest:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            length += len(part)
            body += part[: max(0, self._longest + 1 - len(body))]
            if not message.get("more_body", False):
                break
        return bytes(body)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        error.headers = {"Connection": "close"}
        await error_response(scope["path"], error)(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body once, and then what the connection says."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
