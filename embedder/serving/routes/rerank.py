"""Reranking as Jina and Cohere serve it, ``/v1/rerank``, and as TEI does, ``/rerank``."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from embedder.serving.bodies import Body, JsonRoute
from embedder.serving.errors import ERROR_RESPONSES
from embedder.serving.server import ServerDep

ROUTER = APIRouter(tags=["Reranking"], responses=ERROR_RESPONSES, route_class=JsonRoute)


class TextDocument(Body):
    """A document as an object."""

    text: str


Documents = Annotated[list[str | TextDocument], Field(min_length=1, fail_fast=True)]


class RerankRequest(Body):
    """A query, and the documents to order."""

    query: str
    documents: Documents
    model: str | None = Field(None, description="The reranker, if it is named at all")
    top_n: int | None = Field(None, ge=1, description="How many of the best to return; else all")
    return_documents: bool = Field(False, description="Whether results carry their texts")
    truncate: bool = Field(
        True, description="Cut over-long documents, counted in usage; else they are 413"
    )


class RankedDocument(BaseModel):
    """One document: its place in the request, and its score."""

    index: int
    relevance_score: float
    document: TextDocument | None = None


class RerankUsage(BaseModel):
    """How many tokens the reranker read, and how many documents it did not read to their end."""

    total_tokens: int
    truncated_documents: int


class RerankResponse(BaseModel):
    """Documents, the most relevant first."""

    model: str
    results: list[RankedDocument]
    usage: RerankUsage


class TeiRerankRequest(Body):
    """The same in the format of TEI."""

    query: str
    texts: Annotated[list[str], Field(min_length=1, fail_fast=True)]
    raw_scores: bool = Field(False, description="The model's output without its activation")
    return_text: bool = False
    truncate: bool = Field(False, description="Cut over-long texts; else they are 413")
    truncation_direction: Literal["right", "Right"] = "right"


class TeiRank(BaseModel):
    """One text: its place in the request, and its score."""

    index: int
    score: float
    text: str | None = None


@ROUTER.post("/v1/rerank", response_model_exclude_none=True)
async def rerank(body: RerankRequest, request: Request, server: ServerDep) -> RerankResponse:
    """Order documents by how well they answer a query."""
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    with server.admit():
        found = await server.rank(
            request,
            body.query,
            texts,
            model=body.model,
            truncate=body.truncate,
            param="documents",
        )
    results = [
        RankedDocument(
            index=place,
            relevance_score=score,
            document=TextDocument(text=texts[place]) if body.return_documents else None,
        )
        for place, score in found.order()[: body.top_n]
    ]
    usage = RerankUsage(total_tokens=found.tokens, truncated_documents=found.truncated)
    return RerankResponse(model=found.model, results=results, usage=usage)


@ROUTER.post("/rerank", response_model_exclude_none=True)
async def rank(body: TeiRerankRequest, request: Request, server: ServerDep) -> list[TeiRank]:
    """Order texts by how well they answer a query."""
    with server.admit():
        found = await server.rank(
            request, body.query, body.texts, truncate=body.truncate, raw=body.raw_scores
        )
    return [
        TeiRank(index=place, score=score, text=body.texts[place] if body.return_text else None)
        for place, score in found.order()
    ]
