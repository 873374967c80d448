"""``/v1/search`` and ``/v1/indexes``."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from embedder.serving.bodies import JsonRoute
from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.served import Role, ServedIndex
from embedder.serving.server import Server, ServerDep, add_facts, in_thread
from retrieval.errors import UsageError
from retrieval.filters import Expression, parse_filter
from retrieval.protocols import Vectors
from retrieval.scores import unit_rows

__all__ = ["ROUTER"]

ROUTER = APIRouter(prefix="/v1", tags=["Search"], responses=ERROR_RESPONSES, route_class=JsonRoute)

HITS = 10
_SHORT_FILTER = 1000
"""A filter of so many characters is read in a millisecond or two."""

Scalar = str | int | float | bool | None
MetadataValue = Scalar | list[Scalar]


class SearchRequest(BaseModel):
    """What to look for: a query or a vector."""

    model_config = ConfigDict(extra="forbid")

    query: StrictStr | None = Field(None, description="A text; or leave it out and send a vector")
    vector: Annotated[list[float], Field(min_length=1, fail_fast=True)] | None = Field(
        None, description="As long as the vectors of the index"
    )
    index: str | None = Field(None, description="As /v1/indexes lists it; the first by default")
    k: int = Field(HITS, ge=1, description="The number of hits")
    filter: StrictStr | None = Field(
        None, description='Such as: year >= 2020 and lang in ["en", "de"]'
    )
    input_type: Role = Field("query", description="Which of the model's prompts goes with query")
    truncate: bool = Field(False, description="Cut an over-long query at the end; else it is 413")


class SearchHit(BaseModel):
    """One document."""

    rank: int
    doc_id: str
    score: float
    title: str
    text: str
    metadata: dict[str, MetadataValue]


class SearchResponse(BaseModel):
    """Documents, best first."""

    index: str
    model: str
    hits: list[SearchHit]


class IndexCard(BaseModel):
    """One index that is served."""

    name: str
    documents: int
    dimension: int
    model: str
    fields: dict[str, str] = Field(description="What a filter can name: each field with its type")


class IndexList(BaseModel):
    """The indexes that are served, the default one first."""

    indexes: list[IndexCard]


@ROUTER.post("/search")
async def search(body: SearchRequest, request: Request, server: ServerDep) -> SearchResponse:
    """Find the documents that are nearest to a query or a vector."""
    index = server.find_index(body.index)
    if body.k > server.settings.search_hits:
        message = f"k is {body.k}; expected 1 to {server.settings.search_hits}."
        raise ApiError(400, message, None, "k")
    where = await _read_filter(body.filter, server)
    with server.admit():
        vector = await _find_vector(body, index, request, server)
        add_facts(request, index=index.name)
        try:
            found = await server.search(request, index, vector, body.k, where)
        except UsageError as error:  # k and the vector are checked: the filter does not fit
            raise ApiError(400, str(error), "invalid_filter", "filter") from None
    hits = [
        SearchHit(
            rank=hit.rank,
            doc_id=hit.doc_id,
            score=hit.score,
            title=hit.title,
            text=hit.text,
            metadata=dict(hit.metadata),
        )
        for hit in found
    ]
    return SearchResponse(index=index.name, model=index.model.name, hits=hits)


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
    body: SearchRequest, index: ServedIndex, request: Request, server: Server
) -> Vectors:
    """Return the vector (1, D) to look for, at length 1 where the index's vectors are."""
    if (body.query is None) == (body.vector is None):
        arrived = "neither arrived" if body.query is None else "both arrived"
        raise ApiError(400, f"A search needs query or vector, and {arrived}.", None, "query")
    if body.query is not None:
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
