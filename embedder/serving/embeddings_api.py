"""Embeddings as OpenAI serves them (``/v1/embeddings``, ``/v1/models``) and as TEI (``/embed``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr
from starlette.responses import Response

from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.served import Role, ServedModel
from embedder.serving.server import Server, ServerDep
from retrieval.protocols import Vectors
from retrieval.scores import unit_rows

__all__ = ["OPENAI_ROUTER", "TEI_ROUTER"]

OPENAI_ROUTER = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERROR_RESPONSES)
TEI_ROUTER = APIRouter(tags=["TEI"], responses=ERROR_RESPONSES)

TokenIds = Annotated[list[StrictInt], Field(min_length=1)]


class EmbeddingRequest(BaseModel):
    """What to embed, and how."""

    model_config = ConfigDict(extra="forbid")

    input: (
        StrictStr
        | Annotated[list[StrictStr], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
    ) = Field(
        description="A text, a list of texts, or the same as token ids of the model's own tokenizer"
    )
    model: str | None = Field(None, description="As /v1/models lists it; the first by default")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: of the float32 numbers, little-endian"
    )
    dimensions: int | None = Field(
        None, ge=1, description="A shorter length that the model was trained for (Matryoshka)"
    )
    input_type: Role = Field("document", description="Which of the model's prompts to use")
    truncate: bool = Field(False, description="Cut over-long texts at the end; else they are 413")
    user: str | None = Field(None, description="Accepted and not used")


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """Vectors in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelCard(BaseModel):
    """One model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["millpond"] = "millpond"
    dimension: int
    dimensions: list[int]
    max_tokens: int


class ModelList(BaseModel):
    """The models that are served, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


@OPENAI_ROUTER.post("/embeddings", response_model=EmbeddingList)
async def create_embeddings(
    body: EmbeddingRequest, request: Request, server: ServerDep
) -> Response:
    """Turn texts into vectors."""
    model = server.find_model(body.model)
    _check_dimension(model, body.dimensions)
    texts = _read_texts(model, body.input)
    with server.admit():
        found = await server.embed(request, model, texts, body.input_type, truncate=body.truncate)
    vectors = _truncate_vectors(model, found.vectors, body.dimensions)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(_write(vectors, body.encoding_format))
        ],
        "model": model.name,
        "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
    }
    return Response(json.dumps(answer), media_type="application/json")


@OPENAI_ROUTER.get("/models")
async def list_models(server: ServerDep) -> ModelList:
    """Return the models that are served."""
    return ModelList(data=[_card(server, model) for model in server.models.values()])


@OPENAI_ROUTER.get("/models/{model:path}")
async def get_model(model: str, server: ServerDep) -> ModelCard:
    """Return one model."""
    return _card(server, server.find_model(model))


def _check_dimension(model: ServedModel, wanted: int | None) -> None:
    """Raise a 400 unless the model can give vectors of the wanted length."""
    full = model.encoder.dimension
    if wanted is None or wanted == full or wanted in model.dimensions:
        return
    if model.dimensions:
        listing = ", ".join(str(length) for length in (*model.dimensions, full))
        message = f"dimensions is {wanted}; {model.name} was trained for {listing}."
    else:
        message = (
            f"dimensions is {wanted}, but {model.name} was not trained for shorter vectors "
            f"(Matryoshka). Leave dimensions out, or send {full}."
        )
    raise ApiError(400, message, "unsupported_dimensions", "dimensions")


def _truncate_vectors(model: ServedModel, vectors: Vectors, wanted: int | None) -> Vectors:
    """Return the first ``wanted`` coordinates, at length 1 where the model normalises."""
    if wanted is None or wanted == vectors.shape[1]:
        return vectors
    return unit_rows(vectors[:, :wanted]) if model.normalized else vectors[:, :wanted]


def _read_texts(
    model: ServedModel, given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]
) -> list[str]:
    """Return the texts, with token ids turned into text."""
    if isinstance(given, str):
        return [given]
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return texts
    numbers = [one for one in given if isinstance(one, int)]
    rows = [numbers] if numbers else [one for one in given if isinstance(one, list)]
    if model.decode is None:
        raise ApiError(400, f"{model.name} takes text, not token ids.", "invalid_input", "input")
    return [model.decode(row) for row in rows]


def _write(vectors: Vectors, encoding: str) -> list[list[float]] | list[str]:
    if encoding == "float":
        rows: list[list[float]] = vectors.tolist()
        return rows
    packed = vectors.astype(np.dtype("<f4"))
    return [base64.b64encode(row.tobytes()).decode() for row in packed]


def _card(server: Server, model: ServedModel) -> ModelCard:
    full = model.encoder.dimension
    return ModelCard(
        id=model.name,
        created=server.started,
        dimension=full,
        dimensions=[*model.dimensions, full],
        max_tokens=model.max_tokens,
    )


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


@TEI_ROUTER.post("/embed", response_model=list[list[float]])
async def embed(body: EmbedRequest, request: Request, server: ServerDep) -> Response:
    """Turn texts into vectors: a list of numbers per text."""
    model = server.default_model
    _check_dimension(model, body.dimensions)
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
    vectors = _truncate_vectors(model, found.vectors, body.dimensions)
    return Response(json.dumps(vectors.tolist()), media_type="application/json")


@TEI_ROUTER.get("/info")
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
