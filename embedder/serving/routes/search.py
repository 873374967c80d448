"""``/v1/search`` and ``/v1/indexes``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, cast

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from embedder.serving.bodies import Body, JsonRoute, answer_json
from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.served import Role, ServedIndex
from embedder.serving.server import JOINED, IndexQuery, Server, ServerDep, add_facts, in_thread
from retrieval.corpus.values import find_unwritable
from retrieval.errors import UsageError
from retrieval.filters import Expression, parse_filter
from retrieval.protocols import Vectors
from retrieval.scores import unit_rows
from retrieval.types import DENSE, LEXICAL, Blend, Fusion, Mode

ROUTER = APIRouter(prefix="/v1", tags=["Search"], responses=ERROR_RESPONSES, route_class=JsonRoute)

HITS = 10
_LONGEST_QUERY = 20_000
"""Each word of a query is looked up, and asked of every hit."""
_SHORT_FILTER = 1000
"""A filter of so many characters is read in a millisecond or two."""

Scalar = str | int | float | bool | None
MetadataValue = Scalar | list[Any]


class SearchRequest(Body):
    """What to look for: a query, a vector, or a query with its vector."""

    query: str | None = Field(None, description="A text; or leave it out and send a vector")
    vector: Annotated[list[float], Field(min_length=1, fail_fast=True)] | None = Field(
        None,
        description="As long as the vectors of the index; beside a query, it is not embedded again",
    )
    index: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="As /v1/indexes lists it, the first by default; several of one model are "
        "searched as one",
    )
    k: int = Field(HITS, ge=1, description="The number of hits")
    mode: Mode | None = Field(
        None, description="By default the first that /v1/indexes lists; dense for a vector alone"
    )
    fusion: Fusion = Field("convex", description="How hybrid joins the scores of both arms")
    weight: float | None = Field(
        None, description="The dense arm's share in a convex fusion, 0 to 1"
    )
    filter: str | None = Field(None, description='Such as: year >= 2020 and lang in ["en", "de"]')
    distinct: bool = Field(
        False, description="Of documents that are nearly the same, only the best is a hit"
    )
    input_type: Role = Field("query", description="Which of the model's prompts goes with query")
    truncate: bool = Field(False, description="Cut an over-long query at the end; else it is 413")


class ArmResult(BaseModel):
    """What one arm says of a document."""

    score: float
    rank: int | None = Field(description="null where the arm did not return it, only scored it")


class PassagePlace(BaseModel):
    """A part of a document: its number from 0, and its first and last character."""

    number: int
    start: int | None
    stop: int | None


class SearchHit(BaseModel):
    """One document."""

    rank: int
    doc_id: str
    score: float
    title: str
    text: str
    metadata: dict[str, MetadataValue]
    arms: dict[str, ArmResult] = Field(description="dense and lexical, after a hybrid search")
    passage: PassagePlace | None = Field(
        description="Which part of the document the text is; null where documents are whole"
    )
    matched: list[str] = Field(description="Words of the document that the query asks for")
    index: str


class SearchResponse(BaseModel):
    """Documents, best first."""

    index: str | list[str]
    model: str
    mode: Mode
    hits: list[SearchHit]


class IndexCard(BaseModel):
    """One index that is served."""

    name: str
    documents: int
    dimension: int
    model: str
    fields: dict[str, str] = Field(description="What a filter can name: each field with its type")
    modes: list[Mode] = Field(description="How it can be searched, the default first")


class IndexList(BaseModel):
    """The indexes that are served, the default one first."""

    indexes: list[IndexCard]


@ROUTER.post("/search", response_model=SearchResponse)
async def search(body: SearchRequest, request: Request, server: ServerDep) -> Response:
    """Find the documents that answer a query or a vector best."""
    if isinstance(body.index, list):
        index = server.find_indexes(body.index)
    else:
        index = server.find_index(body.index)
    if body.k > server.settings.search_hits:
        message = f"k is {body.k}; expected 1 to {server.settings.search_hits}."
        raise ApiError(400, message, None, "k")
    blend = _choose(body, index, server)
    where = await _read_filter(body.filter, server)
    with server.admit():
        vector = await _find_vector(body, blend, index, request, server)
        add_facts(request, index=", ".join(index.name.split(JOINED)))
        query = IndexQuery(vector, body.query, blend)
        try:
            found = await server.search(request, index, query, body.k, where)
        except UsageError as error:  # all else is checked: the filter does not fit
            raise ApiError(400, str(error), "invalid_filter", "filter") from None
    searched = index.name.split(JOINED)

    def write() -> bytes:
        answer = SearchResponse(
            index=searched[0] if len(searched) == 1 else searched,
            model=index.model.name,
            mode=cast(Mode, blend.mode),
            hits=[
                SearchHit.model_validate(
                    replace(hit, index=hit.index or searched[0]), from_attributes=True
                )
                for hit in found
            ],
        )
        return answer.model_dump_json().encode()  # megabytes of text, perhaps

    return await answer_json(server, write)


def _choose(body: SearchRequest, index: ServedIndex, server: Server) -> Blend:
    """Return mode, fusion and weight, or raise a 400 for what does not fit the query or index."""
    if body.query is None and body.vector is None:
        raise ApiError(400, "A search needs query or vector, and neither arrived.", None, "query")
    if body.query is not None and not body.query.strip():
        raise ApiError(400, "query is empty; send what to look for.", None, "query")
    if body.query is not None:
        server.check_texts([body.query], "query")
        if problem := find_unwritable(body.query):
            raise ApiError(400, f"query holds {problem}.", "invalid_text", "query")
        if body.mode != DENSE and len(body.query) > _LONGEST_QUERY:
            message = (
                f"query has {len(body.query):,} characters; a search for words takes "
                f"{_LONGEST_QUERY:,}. Shorten it, or send mode dense."
            )
            raise ApiError(413, message, "query_too_long", "query")
    mode = body.mode
    if body.query is None:
        if mode not in (None, DENSE):
            message = f"mode {mode} looks for words: send query, or query and vector."
            raise ApiError(400, message, None, "query")
        mode = DENSE
    try:
        blend = Blend(mode, body.fusion, body.weight, body.distinct)
        chosen = blend.choose(index.index.modes, None, index.name.replace(JOINED, ", "))
    except UsageError as error:
        param = "weight" if body.weight is not None else "mode"
        raise ApiError(400, str(error), None, param) from None
    return replace(blend, mode=chosen.mode)  # the weight that an index keeps is its own affair


@ROUTER.get("/indexes")
async def list_indexes(server: ServerDep) -> IndexList:
    """Return the indexes that are served."""
    return IndexList(
        indexes=[
            IndexCard(
                name=index.name,
                documents=len(index.index),
                dimension=index.index.dimension,
                model=index.model.name,
                fields=dict(index.fields),
                modes=list(index.index.modes),
            )
            for index in server.indexes.values()
        ]
    )


async def _read_filter(text: str | None, server: Server) -> Expression | None:
    if text is None:
        return None
    try:
        if len(text) <= _SHORT_FILTER:
            return parse_filter(text)
        return await in_thread(server.json_thread, lambda: parse_filter(text))
    except UsageError as error:
        raise ApiError(400, str(error), "invalid_filter", "filter") from None


async def _find_vector(
    body: SearchRequest, blend: Blend, index: ServedIndex, request: Request, server: Server
) -> Vectors | None:
    """Return the vector (1, D) to look for, at length 1 where the index's vectors are.

    None where the mode looks for words alone.
    """
    if blend.mode == LEXICAL:
        return None
    if body.vector is None:
        assert body.query is not None
        found = await server.embed(
            request,
            index.model,
            [body.query],
            body.input_type,
            truncate=body.truncate,
            param="query",
        )
        return found.vectors
    with np.errstate(over="ignore"):  # what is too large for float32 is reported below
        vector = np.array([body.vector], dtype=np.float32)
    if vector.shape[1] != index.index.dimension or not np.isfinite(vector).all():
        message = (
            f"vector has {vector.shape[1]} numbers; expected {index.index.dimension} finite "
            f"ones, made by {index.model.name}."
        )
        raise ApiError(400, message, None, "vector")
    return unit_rows(vector) if index.model.normalized else vector
