"""Errors as clients get them: TEI's and Ollama's body on their paths, OpenAI's elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from embedder.serving.batching import QueueFullError
from retrieval.errors import UsageError

TEI_PATHS = (
    "/",
    "/decode",
    "/embed",
    "/embed_all",
    "/embed_sparse",
    "/info",
    "/predict",
    "/rerank",
    "/similarity",
    "/tokenize",
)
_FORMS = {
    "input": "a text, a list of texts, a list of token ids, or a list of such lists, none empty",
    "inputs": "a text, or a list of texts that is not empty",
}
"""Fields of several forms, of which a validator would complain form by form."""
_FIELDS_INSIDE = {"source_sentence", "sentences"}
"""Fields of an object that stands where others have a field of several forms."""
_MOST_PROBLEMS = 3
_LONGEST_MESSAGE = 1000

ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request cannot be carried out as sent."},
    401: {"description": "A bearer key is missing or wrong."},
    404: {"description": "No model or index has this name."},
    408: {"description": "The body took too long to arrive."},
    413: {"description": "The body or a text is too long."},
    422: {"description": "The request cannot be carried out as sent (TEI's paths)."},
    424: {"description": "The model gives nothing of this kind (TEI's paths)."},
    429: {"description": "The queue is full; Retry-After says in how many seconds to come back."},
    500: {"description": "The model failed on this request."},
    503: {"description": "The index cannot be searched now, as where its server is down."},
}


@dataclass
class ApiError(Exception):
    """A request that is answered with an error; never leaves the server.

    Attributes
    ----------
    code : OpenAI's machine-readable reason.
    param : the part of the request that is at fault.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ClientGoneError(Exception):
    """The client has closed its connection."""


def error_response(path: str, error: ApiError) -> Response:
    """Return the error in the format that clients of this path read."""
    message = error.message[:_LONGEST_MESSAGE].encode("utf-8", "backslashreplace").decode()
    status = error.status
    body: dict[str, Any]
    if path in TEI_PATHS:
        status = 422 if status == 400 else status
        kinds = {424: "Backend", 429: "Overloaded", 500: "Backend", 401: "Unauthorized"}
        body = {"error": message, "error_type": kinds.get(status, "Validation")}
    elif path.startswith("/api/"):  # Ollama's
        body = {"error": message}
    else:
        kinds = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
        body = {
            "error": {
                "message": message,
                "type": kinds.get(status, "invalid_request_error"),
                "param": error.param,
                "code": error.code,
            }
        }
    return Response(
        json.dumps(body), status, headers=dict(error.headers), media_type="application/json"
    )


def install_handlers(app: FastAPI) -> None:
    """Let the app answer every expected exception in the formats of ``error_response``."""

    async def answer(request: Request, error: Exception) -> Response:
        return error_response(request.url.path, _translate(error))

    async def answer_nobody(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    for kind in (ApiError, RequestValidationError, HTTPException, QueueFullError, UsageError):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(ClientGoneError, answer_nobody)


def _translate(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _describe_problems(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers or {})
    if isinstance(error, QueueFullError):
        wait = {"Retry-After": str(error.retry_seconds)}
        return ApiError(429, str(error), "queue_full", headers=wait)
    return ApiError(400, str(error))


def _describe_problems(error: RequestValidationError) -> ApiError:
    """Return the first few problems of a body, without repeating what was sent."""
    problems = error.errors()
    heads = {str(part) for problem in problems for part in problem["loc"][1:2]}
    inner = {str(part) for problem in problems for part in problem["loc"][2:3]}
    if len(heads) == 1 and (name := heads.pop()) in _FORMS and not inner & _FIELDS_INSIDE:
        return ApiError(400, f"{name}: expected {_FORMS[name]}.", None, name)
    clauses = []
    for problem in problems[:_MOST_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"][1:]) or "body"
        clauses.append(f"{where}: {problem['msg']}")
    more = len(problems) - len(clauses)
    tail = f"; and {more} more" if more else ""
    names = [str(part) for part in problems[0]["loc"][1:2]] if problems else []
    param = names[0] if names else None
    return ApiError(400, "; ".join(clauses) + tail + ". /docs has the format.", None, param)
