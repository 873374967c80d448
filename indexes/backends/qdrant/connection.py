"""A connection to a Qdrant server: the key and who may get it, retries, errors in one line.

An index folder may come from anyone, and its manifest names a server. Nothing is sent to a server
elsewhere that the user has not named, and no key to any server that the user has not named or
that would get it in clear text over a network.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from indexes.backends.qdrant.options import (
    SERVER,
    QdrantOptions,
    check_url,
    is_loopback,
    load_client,
    origin,
)
from retrieval.errors import MillpondError, StorageError, UsageError

T = TypeVar("T")

API_KEY_VARIABLES = ("MILLPOND_QDRANT_API_KEY", "QDRANT_API_KEY")
URL_VARIABLE = "MILLPOND_QDRANT_URL"
"""Names the one server that an index may use besides those of this machine, and the key with it."""

ATTEMPTS = 6
CONNECT_SECONDS = 5.0
"""A host that swallows packets is told from one that answers slowly."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
TRANSIENT_GRPC = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
REFUSED_STATUS = (401, 403)
REFUSED_GRPC = ("UNAUTHENTICATED", "PERMISSION_DENIED")


def find_api_key(options: QdrantOptions) -> str:
    """Return the key for the server of the options: theirs, or the environment's; or "".

    A server that only a manifest names gets none of the environment.

    Raises
    ------
    UsageError : it holds a character that no key has, such as a line break; or it would travel
        over a network in clear text.
    """
    key, variable = _find_key(options)
    if key and options.url and urlsplit(options.url).scheme != "https":
        _refuse_clear_text(options.url, variable)
    if key.isascii() and key.isprintable() and " " not in key:
        return key
    place = f"in the environment variable {variable}" if variable else "that was given"
    raise UsageError(
        f"The Qdrant API key {place} contains a space, a line break or a non-ASCII "
        "character, so no server accepts it. Copy it again without the characters around it."
    )


def _find_key(options: QdrantOptions) -> tuple[str, str]:
    """Return the key, and the environment variable it comes from; both may be empty."""
    if options.api_key:
        return options.api_key, ""
    return _find_environment_key() if _is_named(options) else ("", "")


def _find_environment_key() -> tuple[str, str]:
    named = ((os.environ.get(name, ""), name) for name in API_KEY_VARIABLES)
    return next((found for found in named if found[0]), ("", ""))


def _is_named(options: QdrantOptions) -> bool:
    """Return whether the user named the server, in the options or in the environment."""
    if not options.received:
        return True
    named = os.environ.get(URL_VARIABLE, "")
    if not named:
        return False
    try:
        check_url(named)
    except UsageError as error:
        raise UsageError(f"The environment variable {URL_VARIABLE}: {error}") from None
    return origin(named) == origin(options.url)


def _refuse_clear_text(url: str, variable: str) -> None:
    if is_loopback(url):
        return
    advice = f"unset {variable}" if variable else "leave the key out"
    raise UsageError(
        f"The API key would travel to {url} in clear text. Type an address that starts with "
        f"https://, or {advice} if the server needs no key."
    )


def _refuse_unnamed(options: QdrantOptions) -> None:
    """Raise UsageError for a server elsewhere that only a manifest names."""
    if _is_named(options) or is_loopback(options.url):
        return
    raise UsageError(
        f"The index names the Qdrant server {options.url}, and you have not; nothing was sent to "
        f"it. If you trust it, set the environment variable {URL_VARIABLE}={options.url}, or type "
        f"--url {options.url} with the command."
    )


class Connection:
    """A Qdrant client that repeats calls after errors that may pass.

    Every request we send may be sent twice: points keep their ids.

    Parameters
    ----------
    options : of a server, or with ``memory``.
    pause : waits the given seconds between two attempts.
    clock : returns seconds that pass.

    Raises
    ------
    UsageError : only a manifest names the server, and it is elsewhere; or see ``find_api_key``.
    """

    def __init__(
        self,
        options: QdrantOptions,
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = options.url or "memory"
        self.in_memory = options.memory
        self._pause, self._clock = pause, clock
        self._timeout_seconds = options.timeout_seconds
        self._down: tuple[float, str] | None = None
        self._named = True
        key, self._key_variable = "", ""
        if options.mode == SERVER:
            _refuse_unnamed(options)
            self._named = _is_named(options)
            key, self._key_variable = find_api_key(options), _find_key(options)[1]
        self._has_key = bool(key)
        client = load_client()
        if self.in_memory:
            self.client: Any = client.QdrantClient(":memory:")
            return
        with warnings.catch_warnings():
            # Then the key does not leave the machine: see find_api_key.
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            warnings.filterwarnings("ignore", ".*grpc.primary_user_agent will be overridden")
            self.client = client.QdrantClient(
                url=options.url,
                api_key=key or None,
                prefer_grpc=options.grpc,
                timeout=options.timeout_seconds,
                check_compatibility=False,
                **_client_settings(options.url),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the sockets; does nothing the second time."""
        with suppress(Exception):  # a channel that is broken already
            self.client.close()

    def run(self, request: Callable[[Any], T], *, attempts: int = ATTEMPTS) -> T:
        """Return ``request(client)``, tried again after errors that may pass.

        With fewer than ``ATTEMPTS`` somebody waits: no longer than for one request that times out,
        and after a server was found to be down, the next call asks it once, or not at all for as
        long as finding that out took.

        Raises
        ------
        StorageError : the server is down, refuses the key, or refuses the request.
        """
        waited_for = attempts < ATTEMPTS
        started = self._clock()
        if waited_for and self._down is not None:
            until, message = self._down
            if started < until:
                raise StorageError(message)
            attempts = 1
        wait = FIRST_PAUSE_SECONDS
        for number in range(1, attempts + 1):
            try:
                answer = request(self.client)
            except MillpondError:
                raise
            except Exception as error:
                took = self._clock() - started
                too_long = waited_for and took >= self._timeout_seconds
                if number == attempts or too_long or not _is_transient(error):
                    explained = self._explain(error, number)
                    if _is_silent(error):
                        self._down = (started + 2 * took, str(explained))
                    raise explained from None
                asked = getattr(error, "retry_after_s", 0)
                self._pause(min(max(wait, asked), LONGEST_PAUSE_SECONDS))
                wait *= 2
            else:
                self._down = None
                return answer
        raise AssertionError("attempts is below 1")

    def _explain(self, error: Exception, attempts: int) -> Exception:
        """Return an error of ours, or the same error if it does not come from a server."""
        status = getattr(error, "status_code", None)
        code = _grpc_code(error)
        if status in REFUSED_STATUS or code in REFUSED_GRPC:
            return StorageError(self._explain_refusal(str(status or code)))
        source = getattr(error, "source", None)
        if _is_silent(error):
            reason = str(code) if source is None else self._describe_silence(source)
            tried = f", asked {attempts} times" if attempts > 1 else ""
            return StorageError(
                f"No Qdrant server answers at {self.place} ({reason}{tried}). Start it, or correct "
                "--url (Qdrant listens at port 6333, gRPC at 6334)."
            )
        if source is not None or isinstance(error, ValueError):
            return StorageError(
                f"{self.place} does not answer like a Qdrant server ({_first_line(source or error)}"
                "). Correct --url."
            )
        if status is None and code is None and not hasattr(error, "retry_after_s"):
            return error
        return StorageError(
            f"The Qdrant server {self.place} cannot do this: {_reason(error, status or code)}."
        )

    def _describe_silence(self, source: object) -> str:
        import httpx

        if isinstance(source, httpx.ConnectTimeout):
            return f"no connection within {CONNECT_SECONDS:g} s"
        if isinstance(source, httpx.TimeoutException):
            return f"no answer within {self._timeout_seconds} s"
        return _first_line(source)

    def _explain_refusal(self, code: str) -> str:
        """Return the message that names the refused key and the place for the right one."""
        if not self._named:
            variable = _find_environment_key()[1] or API_KEY_VARIABLES[1]
            return (
                f"The Qdrant server {self.place} wants an API key ({code}), and only a server that "
                f"you name gets the one in the environment variable {variable}. If this is that "
                f"server, set {URL_VARIABLE}={self.place} too, and run the command again."
            )
        problem = "refuses this API key" if self._has_key else "wants an API key"
        source = f"; it comes from {self._key_variable}" if self._key_variable else ""
        variable = self._key_variable or API_KEY_VARIABLES[1]
        return (
            f"The Qdrant server {self.place} {problem} ({code}){source}. Put the right key into "
            f"the environment variable {variable}, and run the command again."
        )


def _client_settings(url: str) -> dict[str, Any]:
    """Return how the client's libraries connect.

    To a server on this machine not through a proxy, which would get key and documents in clear
    text.
    """

    def limit(request: Any) -> None:
        limits = request.extensions["timeout"]
        limits["connect"] = min(limits["connect"], CONNECT_SECONDS)

    grpc_options = {"grpc.min_reconnect_backoff_ms": int(1000 * CONNECT_SECONDS)}
    settings: dict[str, Any] = {"event_hooks": {"request": [limit]}, "grpc_options": grpc_options}
    if is_loopback(url):
        grpc_options["grpc.enable_http_proxy"] = 0
        settings["trust_env"] = False
    return settings


def _is_transient(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    return (
        hasattr(error, "retry_after_s")
        or status in TRANSIENT_STATUS
        or _grpc_code(error) in TRANSIENT_GRPC
        or _is_silent(error)
    )


def _is_silent(error: Exception) -> bool:
    """Return whether no answer came (as opposed to one that cannot be read)."""
    import httpx

    if _grpc_code(error) in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return True
    return isinstance(getattr(error, "source", None), httpx.TransportError)


def _grpc_code(error: Exception) -> str | None:
    code = getattr(error, "code", None)
    return getattr(code(), "name", None) if callable(code) else None


def _reason(error: Exception, status: object) -> str:
    """Return the reason that the server gives, without HTTP around it."""
    structured = getattr(error, "structured", None)
    if callable(structured):
        with suppress(ValueError, KeyError, TypeError):
            return f"{structured()['status']['error']} ({status})".replace("\n", " ")
    details = getattr(error, "details", None)
    return f"{details() if callable(details) else _first_line(error)} ({status})"


def _first_line(error: object) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
