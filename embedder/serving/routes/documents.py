"""``/v1/indexes/NAME/documents``: clients add and delete documents, where that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from embedder.serving.bodies import Body, JsonRoute
from embedder.serving.errors import ERROR_RESPONSES, ApiError
from embedder.serving.served import Edit
from embedder.serving.server import Server, ServerDep, add_facts
from retrieval.corpus.records import read_documents
from retrieval.errors import RecordError

ROUTER = APIRouter(
    prefix="/v1/indexes/{name}/documents",
    tags=["Documents"],
    responses={**ERROR_RESPONSES, 403: {"description": "This server changes no index."}},
    route_class=JsonRoute,
)


class SentDocument(Body):
    """A document; one with the id of another replaces it."""

    id: str | int
    text: str
    title: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict, description="Can be filtered by")


class PutRequest(Body):
    """Documents to add, or to put in the place of those with their ids."""

    documents: Annotated[list[SentDocument], Field(min_length=1)]


class DeleteRequest(Body):
    """Documents to delete."""

    ids: Annotated[list[str], Field(min_length=1)]
    ignore_missing: bool = Field(False, description="Pass over ids that are not there; else 400")


class Changed(BaseModel):
    """What was done, counted in documents; searches that begin now see it."""

    index: str
    added: int
    replaced: int
    relabelled: int = Field(description="Only metadata changed, and nothing was embedded")
    unchanged: int
    deleted: int
    missing: int


@ROUTER.post("")
async def put_documents(
    name: str, body: PutRequest, request: Request, server: ServerDep
) -> Changed:
    """Add documents, and replace those with the same ids, all of them or none."""
    server.check_count(len(body.documents), "documents")
    try:
        sent = [one.model_dump() for one in body.documents]
        documents = list(read_documents("documents", sent))
    except RecordError as error:
        raise ApiError(400, str(error), "invalid_document", "documents") from None
    return await _change(server, request, name, lambda edit: edit.put(documents))


@ROUTER.post("/delete")
async def delete_documents(
    name: str, body: DeleteRequest, request: Request, server: ServerDep
) -> Changed:
    """Delete documents by their ids, all of them or none."""
    return await _change(
        server, request, name, lambda edit: edit.delete(body.ids, body.ignore_missing)
    )


async def _change(
    server: Server, request: Request, name: str, work: Callable[[Edit], Mapping[str, int]]
) -> Changed:
    with server.admit():
        add_facts(request, index=name)
        done = await server.change(name, work)
    add_facts(request, **done)
    return Changed(index=name, **done)
