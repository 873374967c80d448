"""The ``/embed`` and ``/info`` of Hugging Face's text-embeddings-inference (TEI)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.responses import Response

from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.openai_api import check_dimension, cut_vectors
from embedder.serving.served import Role
from embedder.serving.server import ServerDep

__all__ = ["ROUTER"]

ROUTER = APIRouter(tags=["TEI"], responses=ERROR_RESPONSES)


class EmbedRequest(BaseModel):
    """What to embed with the default model."""

    model_config = ConfigDict(extra="forbid")

    inputs: StrictStr | Annotated[list[StrictStr], Field(min_length=1)]
    truncate: bool = Field(False, description="Cut over-long texts at the end; else they are 413")
    truncation_direction: Literal["right", "Right"] = Field(
        "right", description="Texts lose their end; nothing else is offered"
    )
    normalize: bool = Field(True, description="false only where the model's vectors are not")
    prompt_name: Role | None = Field(None, description="query or document, the default")
    dimensions: int | None = Field(None, ge=1, description="As in /v1/embeddings")


@ROUTER.post("/embed", response_model=list[list[float]])
async def embed(body: EmbedRequest, request: Request, server: ServerDep) -> Response:
    """Turn texts into vectors: a list of lists of numbers, one a text."""
    model = server.default_model
    check_dimension(model, body.dimensions)
    if body.normalize != model.normalized:
        state = "of length 1" if model.normalized else "not normalised"
        raise ApiError(400, f"The vectors of {model.name} are {state}; normalize cannot change it.")
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    with server.admit():
        found = await server.embed(
            request,
            model,
            texts,
            body.prompt_name or "document",
            truncate=body.truncate,
            param="inputs",
        )
    vectors = cut_vectors(model, found.vectors, body.dimensions)
    return Response(json.dumps(vectors.tolist()), media_type="application/json")


@ROUTER.get("/info")
async def info(server: ServerDep) -> dict[str, Any]:
    """Return what the default model is, and the limits of the server."""
    model = server.default_model
    settings = server.settings
    return {
        "model_id": model.name,
        "model_sha": model.encoder.fingerprint.digest,
        "model_dtype": model.details.get("dtype", "float32"),
        "model_type": {"embedding": {"pooling": model.details.get("pooling", "")}},
        "max_concurrent_requests": settings.queue_requests,
        "max_input_length": model.max_tokens,
        "max_batch_tokens": settings.batch_tokens,
        "max_client_batch_size": settings.request_texts,
        "auto_truncate": False,
        "version": server.version,
    }
