"""What every request passes: an id, a log line, the gates of host and key, a limit on its body."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedder.serving.errors import ApiError, ClientGoneError, error_response
from embedder.serving.metrics import Metrics, log_event
from embedder.serving.settings import ServerSettings
from retrieval.errors import SourceNotFoundError, StorageError, UsageError

_LOG = logging.getLogger("millpond.serve")
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_ROUTES_OUTSIDE = "other"
"""The label of paths that lead nowhere: clients cannot make up labels."""
_KEY = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<plain>[^:]*))(?::\d+)?\Z")
_HAS_KEY = "millpond.has_key"
_CLOSED = ("/v1/", "/api/", "/embed", "/info", "/metrics")
"""What a key opens, with all that is posted. The page, its files, /docs and /health hold nothing
of the indexes."""


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys of a file, one per line; empty lines and those that begin with # are skipped.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UsageError : it holds no key, or one with a blank or a character beyond ASCII.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"There is no file {path}. --keys takes a file of keys, one per line."
        ) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}). Name a file.") from None
    lines = [line.strip() for line in text.splitlines()]
    return parse_keys([line for line in lines if line and not line.startswith("#")], str(path))


def parse_keys(keys: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the keys, checked; ``source`` is what messages call their place.

    Raises
    ------
    UsageError : there is none, or one has a blank or a character beyond ASCII.
    """
    for number, key in enumerate(keys, start=1):
        if not _KEY.fullmatch(key):
            raise UsageError(
                f"{source}: key {number} has a blank or a character beyond ASCII. Expected one "
                f"key per line; make one with: openssl rand -hex 32"
            )
    if not keys:
        raise UsageError(f"{source} holds no key. Make one with: openssl rand -hex 32")
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach a server at ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_key(scope: Scope) -> bool:
    """Return whether the client sent one of the keys, or the server has none."""
    return bool(scope[_HAS_KEY])


class _Layer:
    """What stands around the app; anything but HTTP requests passes untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "http":
            await self._handle(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(scope["path"], error)(scope, receive, send)


class KeyGate(_Layer):
    """Answers 401 to requests without one of the keys, where there are keys.

    Every key is compared, and in constant time, so that how long an answer takes tells nothing.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        super().__init__(app)
        self._digests = [_digest(key.encode()) for key in keys]

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if self._digests:
            refusal = self._refusal(Headers(scope=scope).get("authorization"))
        scope[_HAS_KEY] = refusal is None
        is_open = scope["method"] in ("GET", "HEAD") and not scope["path"].startswith(_CLOSED)
        if refusal is None or is_open:
            await self._app(scope, receive, send)
        else:
            await self._refuse(refusal, scope, receive, send)

    def _refusal(self, header: str | None) -> ApiError | None:
        scheme, _, key = (header or "").partition(" ")
        presented = _digest(key.strip().encode("utf-8", "surrogateescape"))
        matches = [hmac.compare_digest(presented, known) for known in self._digests]
        if scheme.lower() == "bearer" and any(matches):
            return None
        message = (
            "The key is not one of this server's."
            if header
            else "A key is needed: send the header 'Authorization: Bearer KEY'."
        )
        challenge = {"WWW-Authenticate": "Bearer"}
        return ApiError(401, message, "invalid_api_key", headers=challenge)


class HostGate(_Layer):
    """Answers 403 to requests that name another host than this machine.

    A web page can point a name of its own at 127.0.0.1 and so read what a server without keys
    would tell to programs of this machine (DNS rebinding); its requests carry that name.
    """

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = _HOST.match(Headers(scope=scope).get("host", ""))
        if name is not None and is_loopback(name["six"] or name["plain"]):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            403,
            "Without keys this server answers to localhost and 127.0.0.1 only. Start it "
            "with --keys FILE to reach it by another name.",
            "wrong_host",
        )
        await self._refuse(error, scope, receive, send)


def _digest(key: bytes) -> bytes:
    """Return 32 bytes whatever the length of the key."""
    return hashlib.sha256(key).digest()


class Recorder(_Layer):
    """Gives each request an id, logs and counts it, and answers 500 where the app raised.

    The client's ``X-Request-ID`` is kept where it is 1 to 128 plain characters; the answer
    carries the id in any case.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self._metrics = metrics

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                await self._refuse(error, scope, receive, send_with_id)
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


class BodyLimit(_Layer):
    """Reads each body before the app does, within limits.

    413 where it is too long for its route, 408 where it is too slow, and 429 where all bodies
    that are being read and worked on would take too much memory together.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        super().__init__(app)
        self._settings = settings
        self._held_bytes = 0

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._settings
        longest = settings.body_bytes
        if scope["path"] == "/v1/search":
            longest = min(longest, settings.search_body_bytes)
        parts: list[bytes] = []
        error = None
        try:
            async with asyncio.timeout(settings.body_seconds):
                error = await self._read(receive, parts, longest)
        except TimeoutError:
            message = f"The body did not arrive within {settings.body_seconds:g} s."
            error = ApiError(408, message, headers={"Connection": "close"})
        except ClientGoneError:
            self._held_bytes -= sum(map(len, parts))
            return
        body = b"".join(parts)
        parts.clear()
        try:
            if error is None:
                await self._app(scope, _replay(body, receive), send)
            else:
                await self._refuse(error, scope, receive, send)
        finally:
            self._held_bytes -= len(body)

    async def _read(self, receive: Receive, parts: list[bytes], longest: int) -> ApiError | None:
        """Append to ``parts`` until the body is whole; return why it will not do.

        Twice what the server takes is read and dropped, because a client that is still sending
        would not see an answer.
        """
        length = 0
        while length <= 2 * self._settings.body_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            length += len(part)
            if length <= longest:
                parts.append(part)
                self._held_bytes += len(part)
            if self._held_bytes > self._settings.held_bytes:
                return _too_much()
            if not message.get("more_body", False):
                break
        return None if length <= longest else _too_long(longest)


def _too_long(longest: int) -> ApiError:
    return ApiError(
        413,
        f"The body is longer than {longest:,} bytes, which is what this server accepts here. "
        f"Send fewer texts at a time.",
        "body_too_long",
        headers={"Connection": "close"},
    )


def _too_much() -> ApiError:
    headers = {"Connection": "close", "Retry-After": "1"}
    message = "The server holds as many bodies as it has room for; try again in 1 s."
    return ApiError(429, message, "queue_full", headers=headers)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body once, and then what the connection says."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
