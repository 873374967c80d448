"""JSON in and out without holding up other requests: limits before parsing, work off the loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from embedder.serving.errors import ApiError
from embedder.serving.server import Server, in_thread

MAX_FIELDS = 64
"""The most fields of one object: every unknown one becomes an error that has to be built."""

_SMALL_BYTES = 16_384
"""A body of this size is parsed in less time than another thread costs."""


class Body(BaseModel):
    """A JSON object of a request, whose every field is known."""

    model_config = ConfigDict(extra="forbid", strict=True)


class JsonRoute(APIRoute):
    """A route whose body is parsed by ``read_json``, in another thread where it is large."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI, given the parsed body."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def parse_first(request: Request) -> Response:
            server = request.app.state.server
            body = await request.body()
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if body and kind != "application/json" and not kind.endswith("+json"):
                raise ApiError(
                    400,
                    f"The content type is {kind or 'missing'}; expected JSON. Send the header "
                    f"'Content-Type: application/json'.",
                    "invalid_content_type",
                )
            most = server.settings.request_values
            if len(body) <= _SMALL_BYTES:
                value = read_json(body, most)
            else:
                value = await in_thread(server.json_thread, lambda: read_json(body, most))
            return await handle(_ParsedRequest(request, value))

        return parse_first


class _ParsedRequest(Request):
    """A request whose body has been read and parsed."""

    def __init__(self, request: Request, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body = b"{}"  # asked whether there is one
        self._value = value

    async def json(self) -> Any:
        return self._value


def read_json(body: bytes, most_values: int) -> Any:
    """Return the value of a JSON body; an empty body is an object without fields.

    Raises
    ------
    ApiError : 413 for more than ``most_values`` values; 400 for what is not JSON in UTF-8, is
        nested too deeply, has a number beyond Python's or an object of more than 64 fields.
    """
    if count_values(body, most_values) > most_values:
        raise ApiError(
            413,
            f"The body holds more than {most_values:,} values (texts, numbers and names), which "
            f"is what this server accepts. Send it in parts.",
            "too_many_values",
        )
    try:
        value = json.loads(body.decode("utf-8-sig")) if body else {}
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ApiError(400, f"The body is not JSON in UTF-8: {reason}.", "invalid_json") from None
    _check_fields(value)
    return value


def count_values(body: bytes, enough: int) -> int:
    """Return how many values JSON text holds, give or take its brackets.

    Counting costs milliseconds for megabytes, where parsing millions of values takes seconds.
    Text inside quotes counts as one value. Ends early for more than ``enough`` strings.
    """
    if _count_separators(body) <= enough and body.count(b'"') <= 2 * enough:
        return _count_separators(body)  # at most: there may be commas in texts
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = plain.count(b'"')
    if quotes > 2 * enough:
        return quotes // 2
    return _count_separators(b"".join(plain.split(b'"')[::2]))


def write_rows(rows: Iterable[Any], head: str = "", rest: Mapping[str, Any] | None = None) -> bytes:
    """Return rows as a JSON list, or as the end of an object that begins with ``head``.

    Each row is written by itself: one call for a million numbers would keep Python's lock for
    half a second.
    """
    listing = f"[{', '.join(map(json.dumps, rows))}]"
    if rest is None:
        return listing.encode()
    return f"{{{head}{listing}, {json.dumps(rest)[1:]}".encode()


async def answer_json(server: Server, write: Callable[[], bytes]) -> Response:
    """Return an answer that another thread writes."""
    return Response(await in_thread(server.json_thread, write), media_type="application/json")


def _count_separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _check_fields(value: Any) -> None:
    """Raise a 400 for an object, or one inside it, of too many fields."""
    if not isinstance(value, dict):
        return
    for one in (value, *value.values()):
        if isinstance(one, dict) and len(one) > MAX_FIELDS:
            raise ApiError(
                400,
                f"An object of the body has {len(one):,} fields; expected at most {MAX_FIELDS}. "
                f"/docs has the format.",
            )
