"""Reranking as Jina and Cohere serve it, ``/v1/rerank``, and as TEI does, ``/rerank``."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr

from embedder.serving.bodies import JsonRoute
from embedder.serving.errors import ERROR_RESPONSES
from embedder.serving.reranking import Ranked
from embedder.serving.server import Server, ServerDep

__all__ = ["ROUTER"]

ROUTER = APIRouter(tags=["Reranking"], responses=ERROR_RESPONSES, route_class=JsonRoute)


class TextDocument(BaseModel):
    """A document as an object."""

    model_config = ConfigDict(extra="forbid")

    text: StrictStr


Documents = Annotated[list[StrictStr | TextDocument], Field(min_length=1, fail_fast=True)]


class RerankRequest(BaseModel):
    """A query, and the documents to order."""

    model_config = ConfigDict(extra="forbid")

    query: StrictStr
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


class TeiRerankRequest(BaseModel):
    """The same in the format of TEI."""

    model_config = ConfigDict(extra="forbid")

    query: StrictStr
    texts: Annotated[list[StrictStr], Field(min_length=1, fail_fast=True)]
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
    found = await _rank(
        server, request, body.query, texts, body.truncate, "documents", model=body.model
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
    found = await _rank(
        server, request, body.query, body.texts, body.truncate, "texts", raw=body.raw_scores
    )
    return [
        TeiRank(index=place, score=score, text=body.texts[place] if body.return_text else None)
        for place, score in found.order()
    ]


async def _rank(
    server: Server,
    request: Request,
    query: str,
    texts: list[str],
    truncate: bool,
    param: str,
    *,
    model: str | None = None,
    raw: bool = False,
) -> Ranked:
    with server.admit():
        return await server.rank(
            request, query, texts, model=model, truncate=truncate, param=param, raw=raw
        )
