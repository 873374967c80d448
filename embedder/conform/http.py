"""JSON over HTTP with errors that say what to do; waits where a server asks to. No torch."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from retrieval.errors import EndpointError
from retrieval.protocols import Notify, silent

TIMEOUT_SECONDS = 300.0
TRIES = 4
LONGEST_WAIT_SECONDS = 60.0
MOST_BYTES = 256 * 2**20
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_REFUSED = (400, 413, 422)
_BUSY = (429, 503)
_ABSENT = (400, 404, 405, 501)


class RefusedError(EndpointError):
    """The server understood the request and does not take it; the message is its reason."""


class _NoRedirect(HTTPRedirectHandler):
    """Follows nothing: a key must not go to another host, nor a POST become a GET."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Client:
    """Asks one server.

    Parameters
    ----------
    base : its address without a slash at the end.
    key : sent as a bearer token; "" for none.
    key_variable : where the key came from, for messages.
    notify : receives a line for each wait.
    """

    def __init__(
        self, base: str, key: str = "", key_variable: str | None = None, notify: Notify = silent
    ) -> None:
        self.base = base
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._key_variable = key_variable
        self._notify = notify
        parts = urlsplit(base)
        self._is_local = parts.hostname in _LOCAL_HOSTS
        if key and parts.scheme == "http" and not self._is_local:
            notify(f"The key goes to {base} unencrypted; https would hide it.")
        handlers = [_NoRedirect(), *([ProxyHandler({})] if self._is_local else [])]
        self._opener: OpenerDirector = build_opener(*handlers)

    def find(self, path: str) -> Any:
        """Return what the server has at a path, None where it has no JSON there.

        Raises
        ------
        EndpointError : it does not answer, or wants a key.
        """
        try:
            return self._ask(path, None, absent=_ABSENT)
        except _NotJsonError:
            return None

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a JSON body.

        Raises
        ------
        RefusedError : status 400, 413 or 422.
        EndpointError : any other status than 200, no JSON, or no answer.
        """
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None, absent: tuple[int, ...] = ()) -> Any:
        where = f"{self.base}{path}"
        for left in reversed(range(TRIES)):
            status, headers, content = self._once(where, body)
            if status not in _BUSY or not left:
                break
            seconds = _read_wait(headers.get("Retry-After"), 2.0 ** (TRIES - 1 - left))
            self._notify(f"{where} answers {status} and is asked again in {seconds:.0f} s")
            time.sleep(seconds)
        if status in absent:
            return None
        if status != 200:
            raise self._error(where, status, content)
        return _parse(where, content)

    def _once(self, where: str, body: bytes | None) -> tuple[int, Mapping[str, str], bytes]:
        request = Request(where, data=body, headers=self._headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return answer.status, dict(answer.headers.items()), _read(answer, where)
        except HTTPError as error:
            return error.code, dict(error.headers.items()), _read_error(error)
        except TimeoutError:
            reason = f"no answer within {TIMEOUT_SECONDS:.0f} s"
        except URLError as error:
            reason = str(getattr(error.reason, "strerror", None) or error.reason)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = str(error) or type(error).__name__
        raise EndpointError(
            f"{where} cannot be reached: {reason}. Check the address, and that the server runs."
        )

    def _error(self, where: str, status: int, content: bytes) -> EndpointError:
        reason = _reason(content)
        said = f"{where} answers {status}" + (f": {reason}" if reason else "")
        if status in _REFUSED:
            return RefusedError(said)
        if status in (401, 403):
            advice = (
                f"The key in {self._key_variable} is not accepted"
                if self._key_variable
                else "It wants a key: put it into a variable and add --key-variable NAME"
            )
        elif status in _BUSY:
            advice = f"It was asked {TRIES} times; try again later"
        elif 300 <= status < 400:
            advice = "It sends clients elsewhere; name the final address"
        elif status == 404:
            advice = "Check the address, --api and --remote-model"
        else:
            advice = "See the log of the server"
        return EndpointError(f"{said.rstrip('.')}. {advice}.")


class _NotJsonError(EndpointError):
    """What arrived is no JSON."""


def _read(answer: Any, where: str) -> bytes:
    content: bytes = answer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise EndpointError(f"{where}: the answer has more than {MOST_BYTES >> 20} MiB.")
    return content


def _read_error(error: HTTPError) -> bytes:
    """Return what there is of the body of an error; the status says enough without one."""
    with error:
        try:
            return error.read(MOST_BYTES)
        except http.client.IncompleteRead as cut:
            return cut.partial
        except (OSError, http.client.HTTPException):
            return b""


def _parse(where: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        start = content[:60].decode(errors="replace").strip()
        kind = "HTML, a page for people" if start.startswith("<") else "no JSON"
        raise _NotJsonError(
            f"{where} answers with {kind}: {start!r}. Check that this is the address of an "
            f"embedding server and not of a proxy or a web page."
        ) from None


def _reason(content: bytes) -> str:
    """Return the message in an error's body, on one line; "" where there is none to show."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return " ".join(str(found).split())[:200]


def _read_wait(header: str | None, usual: float) -> float:
    """Return the seconds that Retry-After names, as a number or a date, a minute at most."""
    seconds = usual
    if header:
        try:
            seconds = float(header)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(header).timestamp() - time.time()
            except ValueError:
                seconds = usual
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if seconds == seconds else usual
