"""Bearer keys: read from a file or a text, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from embedder.serving.errors import ApiError, error_response
from retrieval.errors import SourceNotFoundError, StorageError, UsageError

__all__ = ["HostGate", "KeyGate", "is_loopback", "parse_keys", "read_keys"]

_KEY = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<plain>[^:]*))(?::\d+)?\Z")
_CLOSED = ("/v1/", "/embed", "/info", "/metrics")
"""What a key opens. The page, its files, /docs and /health hold nothing of the indexes."""


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys of a file: one a line; empty lines and lines that begin with # are left out.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UsageError : it holds no key, or one with a blank or a character beyond ASCII.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"There is no file {path}. --keys takes a file of keys, one a line."
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
                f"{source}: key {number} has a blank or a character beyond ASCII. Accepted is one "
                f"key a line; make one with: openssl rand -hex 32"
            )
    if not keys:
        raise UsageError(f"{source} holds no key. Make one with: openssl rand -hex 32")
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach a server at ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class KeyGate:
    """Answers 401 to requests without one of the keys, where there are keys.

    Every key is compared, and in constant time, so that how long an answer takes tells nothing.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and self._digests and scope["path"].startswith(_CLOSED):
            refusal = self._refusal(Headers(scope=scope).get("authorization"))
            if refusal is not None:
                await error_response(scope["path"], refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

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


class HostGate:
    """Answers 403 to requests that name another host than this machine.

    A web page can point a name of its own at 127.0.0.1 and so read what a server without keys
    would tell to programs of this machine (DNS rebinding); its requests carry that name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            name = _HOST.match(Headers(scope=scope).get("host", ""))
            if name is None or not is_loopback(name["six"] or name["plain"]):
                error = ApiError(
                    403,
                    "Without keys this server answers to localhost and 127.0.0.1 only. Start it "
                    "with --keys FILE to reach it by another name.",
                    "wrong_host",
                )
                await error_response(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _digest(key: bytes) -> bytes:
    """Return 32 bytes whatever the length of the key."""
    return hashlib.sha256(key).digest()
