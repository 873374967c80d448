"""Embeddings as Ollama serves them: ``/api/embed``, and ``/api/tags`` for the names."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from embedder.serving.bodies import Body, JsonRoute, answer_json, write_rows
from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.routes.openai import TextList, check_dimension, truncate_vectors
from embedder.serving.server import ServerDep
from retrieval.scores import unit_rows

ROUTER = APIRouter(prefix="/api", tags=["Ollama"], responses=ERROR_RESPONSES, route_class=JsonRoute)

_TAG = ":latest"
"""Ollama's clients may add it to a name that has no tag."""


class OllamaRequest(Body):
    """What to embed, and how."""

    model: str = Field(description="As /api/tags lists it, such as NAME or NAME:query")
    input: str | TextList
    truncate: bool = Field(True, description="Cut over-long texts at the end; else they are 413")
    dimensions: int | None = Field(None, ge=1, description="As in /v1/embeddings")
    options: dict[str, Any] | None = Field(None, description="Not used; num_ctx is checked")
    keep_alive: str | float | None = Field(None, description="Not used: the model stays loaded")


class OllamaAnswer(BaseModel):
    """Vectors of length 1 in the order of the input; durations are in ns."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


@ROUTER.post("/embed", response_model=OllamaAnswer)
async def embed(body: OllamaRequest, request: Request, server: ServerDep) -> Response:
    """Turn texts into vectors, as Ollama does: over-long texts are cut unless truncate is false."""
    started = time.monotonic_ns()
    known = body.model in server.model_names
    name = body.model if known else body.model.removesuffix(_TAG)
    model, role = server.find_model(name)
    check_dimension(model, body.dimensions)
    window = (body.options or {}).get("num_ctx")
    if isinstance(window, int) and window < model.max_tokens:
        message = (
            f"options.num_ctx is {window}, but {model.name} reads {model.max_tokens} tokens here. "
            f"Leave it out, or serve {model.name},max_tokens={window}."
        )
        raise ApiError(400, message, None, "options")
    texts = [body.input] if isinstance(body.input, str) else body.input
    with server.admit():
        found = await server.embed(
            request, model, texts, role or "document", truncate=body.truncate
        )
    vectors = truncate_vectors(model, found.vectors, body.dimensions)
    vectors = vectors if model.normalized else unit_rows(vectors)
    rows = (row.tolist() for row in vectors)
    rest = {
        "model": body.model,
        "total_duration": time.monotonic_ns() - started,
        "load_duration": 0,
        "prompt_eval_count": found.tokens,
    }
    return await answer_json(server, lambda: write_rows(rows, '"embeddings": ', rest))


@ROUTER.get("/tags")
async def list_tags(server: ServerDep) -> dict[str, Any]:
    """Return the names that /api/embed takes."""
    since = datetime.fromtimestamp(server.started, UTC).isoformat()
    return {
        "models": [
            {
                "name": name,
                "model": name,
                "modified_at": since,
                "size": 0,
                "digest": model.encoder.fingerprint.digest,
                "details": {"family": "millpond", "format": "millpond"},
            }
            for name, (model, _) in server.model_names.items()
        ]
    }
