"""Embeddings as OpenAI serves them: ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from embedder.serving.bodies import Body, JsonRoute, answer_json, write_rows
from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.served import Role, ServedModel
from embedder.serving.server import Server, ServerDep
from retrieval.protocols import Vectors
from retrieval.scores import unit_rows

ROUTER = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERROR_RESPONSES, route_class=JsonRoute)

TextList = Annotated[list[str], Field(min_length=1, fail_fast=True)]
TokenIds = Annotated[list[int], Field(min_length=1, fail_fast=True)]


class EmbeddingRequest(Body):
    """What to embed, and how."""

    input: (
        str | TextList | TokenIds | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)]
    ) = Field(
        description="A text or a list of texts; with --accept-token-ids also the same as token "
        "ids of the model's own tokenizer"
    )
    model: str | None = Field(None, description="As /v1/models lists it; the first by default")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: of the float32 numbers, little-endian"
    )
    dimensions: int | None = Field(
        None, ge=1, description="A shorter length that the model was trained for (Matryoshka)"
    )
    input_type: Role | None = Field(
        None, description="Which of the model's prompts to use; that of the name, else document"
    )
    truncate: bool = Field(False, description="Cut over-long texts at the end; else they are 413")
    user: str | None = Field(None, description="Accepted and not used")


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens the model read, and of how many inputs it did not read the end."""

    prompt_tokens: int
    total_tokens: int
    truncated_inputs: int


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
    input_type: Role
    created: int
    owned_by: Literal["millpond"] = "millpond"
    dimension: int
    dimensions: list[int]
    max_tokens: int


class ModelList(BaseModel):
    """The models that are served, the default one first, each also by NAME:query."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


@ROUTER.post("/embeddings", response_model=EmbeddingList)
async def create_embeddings(
    body: EmbeddingRequest, request: Request, server: ServerDep
) -> Response:
    """Turn texts into vectors."""
    model, role = server.find_model(body.model)
    if role is not None and body.input_type not in (role, None):
        message = (
            f"input_type is {body.input_type}, but the model {body.model!r} stands for "
            f"{role}. Leave one of them out."
        )
        raise ApiError(400, message, None, "input_type")
    check_dimension(model, body.dimensions)
    texts = _read_texts(server, model, body.input)
    role = role or body.input_type or "document"
    with server.admit():
        found = await server.embed(request, model, texts, role, truncate=body.truncate)
    vectors = truncate_vectors(model, found.vectors, body.dimensions)
    rows = (
        {"object": "embedding", "index": index, "embedding": _encode(row, body.encoding_format)}
        for index, row in enumerate(vectors)
    )
    rest = {
        "model": body.model or model.name,
        "usage": {
            "prompt_tokens": found.tokens,
            "total_tokens": found.tokens,
            "truncated_inputs": found.truncated,
        },
    }
    head = '"object": "list", "data": '
    return await answer_json(server, lambda: write_rows(rows, head, rest))


@ROUTER.get("/models")
async def list_models(server: ServerDep) -> ModelList:
    """Return the models that are served."""
    return ModelList(data=[_card(server, name) for name in server.model_names])


@ROUTER.get("/models/{model:path}")
async def get_model(model: str, server: ServerDep) -> ModelCard:
    """Return one model."""
    return _card(server, model)


def check_dimension(model: ServedModel, wanted: int | None) -> None:
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


def truncate_vectors(model: ServedModel, vectors: Vectors, wanted: int | None) -> Vectors:
    """Return the first ``wanted`` coordinates, at length 1 where the model normalises."""
    if wanted is None or wanted == vectors.shape[1]:
        return vectors
    return unit_rows(vectors[:, :wanted]) if model.normalized else vectors[:, :wanted]


def _read_texts(
    server: Server,
    model: ServedModel,
    given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
) -> list[str]:
    """Return the texts, with token ids turned into text."""
    if isinstance(given, str):
        return [given]
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return texts
    numbers = [one for one in given if isinstance(one, int)]
    rows = [numbers] if numbers else [one for one in given if isinstance(one, list)]
    if not server.settings.accept_token_ids:
        raise ApiError(
            400,
            "input holds token ids, which are another text in every other tokenizer: LangChain "
            "sends those of OpenAI's models unless it has check_embedding_ctx_length=False. Send "
            "text, or start the server with --accept-token-ids if the ids are the model's own.",
            "token_ids_refused",
            "input",
        )
    if model.decode is None:
        raise ApiError(400, f"{model.name} takes text, not token ids.", "invalid_input", "input")
    server.check_count(len(rows), "input")
    return [model.decode(row) for row in rows]


def _encode(vector: Vectors, encoding: str) -> list[float] | str:
    if encoding == "float":
        numbers: list[float] = vector.tolist()
        return numbers
    return base64.b64encode(vector.astype(np.dtype("<f4")).tobytes()).decode()


def _card(server: Server, name: str) -> ModelCard:
    model, role = server.find_model(name)
    full = model.encoder.dimension
    return ModelCard(
        id=name,
        input_type=role or "document",
        created=server.started,
        dimension=full,
        dimensions=[*model.dimensions, full],
        max_tokens=model.max_tokens,
    )
