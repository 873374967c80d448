"""Embeddings as TEI (Hugging Face's text-embeddings-inference) serves them, by the first model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from embedder.engine.text import Side
from embedder.serving.bodies import Body, JsonRoute, answer_json, write_rows
from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.routes.openai import TextList, check_dimension, truncate_vectors
from embedder.serving.served import Role, ServedModel, ShownToken
from embedder.serving.server import Server, ServerDep, in_thread
from retrieval.protocols import Vectors
from retrieval.scores import unit_rows

ROUTER = APIRouter(tags=["TEI"], responses=ERROR_RESPONSES, route_class=JsonRoute)

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]
Direction = Literal["right", "Right", "left", "Left"]


class _Reading(Body):
    """How texts are read."""

    truncate: bool = Field(default=False, description="Cut over-long texts; else they are 413")
    truncation_direction: Direction = Field(
        default="right", description="Which end over-long texts lose"
    )
    prompt_name: Role | None = Field(default=None, description="query or document, the default")

    @property
    def role(self) -> Role:
        """The role of the texts."""
        return self.prompt_name or "document"

    @property
    def side(self) -> Side:
        """Where texts are cut."""
        return "left" if self.truncation_direction.lower() == "left" else "right"


class EmbedRequest(_Reading):
    """What to embed with the default model."""

    inputs: str | TextList
    normalize: bool | None = Field(
        None, description="Whether vectors have length 1; by default as the model has them"
    )
    dimensions: int | None = Field(None, ge=1, description="As in /v1/embeddings")


class EmbedAllRequest(_Reading):
    """What to embed with the default model, token by token."""

    inputs: str | TextList


class DecodeRequest(Body):
    """Token ids of one text or of several."""

    ids: TokenIds | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)]
    skip_special_tokens: bool = Field(True, description="Leave BOS, EOS and the like out")


class SimilarityInputs(Body):
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: TextList


class SimilarityRequest(Body):
    """What to compare, and how."""

    inputs: SimilarityInputs
    parameters: _Reading | None = None


class TokenizeRequest(Body):
    """What to tokenize."""

    inputs: str | TextList
    add_special_tokens: bool = Field(True, description="false leaves BOS, EOS and the like out")
    prompt_name: Role | None = Field(None, description="query or document, the default")


class Token(BaseModel):
    """One token; where it stands in the text is not told."""

    id: int
    text: str
    special: bool
    start: None = None
    stop: None = None


@ROUTER.post("/", response_model=list[list[float]])
@ROUTER.post("/embed", response_model=list[list[float]])
async def embed(body: EmbedRequest, request: Request, server: ServerDep) -> Response:
    """Turn texts into vectors: a list of numbers per text."""
    model = _choose_length(server.default_model, body.normalize)
    check_dimension(model, body.dimensions)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    vectors = await _embed(request, server, model, texts, body)
    vectors = truncate_vectors(model, vectors, body.dimensions)
    if body.normalize and not model.normalized:
        vectors = unit_rows(vectors)
    return await answer_json(server, lambda: write_rows(map(np.ndarray.tolist, vectors)))


@ROUTER.post("/embed_all", response_model=list[list[list[float]]])
async def embed_all(body: EmbedAllRequest, request: Request, server: ServerDep) -> Response:
    """Turn texts into vectors of their tokens, prompt and ending included, before any pooling."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    model = server.default_model
    with server.admit():
        found = await server.embed_tokens(
            request, model, texts, body.role, truncate=body.truncate, side=body.side
        )
        rows = (write_rows(map(np.ndarray.tolist, one)) for one in found)
        return await answer_json(server, lambda: b"[" + b", ".join(rows) + b"]")


@ROUTER.post("/embed_sparse")
async def embed_sparse(server: ServerDep) -> None:
    """Refuse: no model that is served here gives sparse vectors."""
    message = f"{server.default_model.name} gives dense vectors alone; POST /embed returns them."
    raise ApiError(424, message)


@ROUTER.post("/predict")
async def predict(server: ServerDep) -> None:
    """Refuse: no model that is served here classifies."""
    message = f"{server.default_model.name} is no classifier; POST /embed returns its vectors."
    raise ApiError(424, message)


@ROUTER.post("/decode")
async def decode(body: DecodeRequest, server: ServerDep) -> list[str]:
    """Turn token ids back into texts."""
    model = server.default_model
    if model.decode is None:
        raise ApiError(424, f"{model.name} takes text alone, and has no token ids.", None, "ids")
    rows: list[Sequence[Any]] = [row for row in body.ids if isinstance(row, list)]
    rows = rows or [body.ids]
    server.check_count(len(rows), "ids")
    if (count := sum(map(len, rows))) > server.settings.queue_tokens:
        most = server.settings.queue_tokens
        message = f"ids holds {count:,} tokens; expected {most:,} at most. Send them in parts."
        raise ApiError(413, message, "too_many_tokens", "ids")
    write, special = model.decode, not body.skip_special_tokens
    with server.admit():
        return await in_thread(
            server.tokenizing_thread, lambda: [write(row, special) for row in rows]
        )


@ROUTER.post("/similarity")
async def compare(body: SimilarityRequest, request: Request, server: ServerDep) -> list[float]:
    """Return the cosine similarity of a text with each of the others."""
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    reading = body.parameters or _Reading()
    vectors = unit_rows(await _embed(request, server, server.default_model, texts, reading))
    similarities: list[float] = (vectors[1:] @ vectors[0]).tolist()
    return similarities


@ROUTER.post("/tokenize", response_model=list[list[Token]])
async def tokenize(body: TokenizeRequest, server: ServerDep) -> Response:
    """Return the tokens of texts as the model would read them with their prompt, none cut off."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    server.check_texts(texts, "inputs")
    role: Role = body.prompt_name or "document"
    with server.admit():
        shown = await in_thread(server.tokenizing_thread, lambda: _show_tokens(server, texts, role))
        rows = (
            [
                {**one._asdict(), "start": None, "stop": None}
                for one in row
                if body.add_special_tokens or not one.special
            ]
            for row in shown
        )
        return await answer_json(server, lambda: write_rows(rows))


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


def _choose_length(model: ServedModel, normalize: bool | None) -> ServedModel:
    """Return the model as it is, or without the last step that gives vectors length 1."""
    if normalize is not False or not model.normalized:
        return model
    if model.unnormalized is None:
        message = f"The vectors of {model.name} have length 1; normalize: false cannot undo it."
        raise ApiError(400, message, None, "normalize")
    return model.unnormalized


async def _embed(
    request: Request, server: Server, model: ServedModel, texts: list[str], reading: _Reading
) -> Vectors:
    with server.admit():
        found = await server.embed(
            request,
            model,
            texts,
            reading.role,
            truncate=reading.truncate,
            side=reading.side,
            param="inputs",
        )
    return found.vectors


def _show_tokens(server: Server, texts: list[str], role: Role) -> list[list[ShownToken]]:
    """Return the tokens of texts, together no more than may wait for the model."""
    model = server.default_model
    if model.show is None:
        raise ApiError(400, f"{model.name} does not show its tokens.", None, "inputs")
    left = most = server.settings.queue_tokens
    rows = []
    for text in texts:
        row, more = model.show(text, role, left)
        left -= len(row)
        if more or left < 0:
            message = (
                f"inputs has more than the {most:,} tokens that one answer shows. Send fewer or "
                f"shorter texts, or start the server with a larger --queue-tokens."
            )
            raise ApiError(413, message, "too_many_tokens", "inputs")
        rows.append(row)
    return rows
