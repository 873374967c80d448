"""The application: routes for programs, pages for people.

The search page at ``/`` and ``/docs`` load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from embedder.serving.errors import install_handlers
from embedder.serving.metrics import log_event
from embedder.serving.middleware import BodyLimit, HostGate, KeyGate, Recorder, has_key
from embedder.serving.routes import documents, ollama, openai, rerank, search, tei
from embedder.serving.server import Server, ServerDep

STATIC = Path(__file__).resolve().parent / "static"
"""Served at /static; index.html is also the page at /."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again, so that pages and scripts are of one version
}
"""Go with every page and its files: nothing may be loaded from, sent to or framed by others."""

_HEALTH_ROUTER = APIRouter(tags=["Operation"])
_PAGES_ROUTER = APIRouter(include_in_schema=False)
_BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "No new work is taken."}}


class IndexHealth(BaseModel):
    """Which version of an index is served."""

    name: str
    version: str
    documents: int
    trouble: str | None = Field(description="Why a newer version is not served")


class Health(BaseModel):
    """Whether the process answers, whether it takes new work, and with which indexes."""

    live: bool
    ready: bool
    indexes: list[IndexHealth] | None = Field(
        default=None, description="null where the server has keys and the request has none"
    )


@_HEALTH_ROUTER.get("/health/live", response_model_exclude={"indexes"})
async def show_live() -> Health:
    """Return 200 for as long as the process answers at all."""
    return Health(live=True, ready=True)


@_HEALTH_ROUTER.get("/health/ready", responses=_BUSY)
@_HEALTH_ROUTER.get("/health", responses=_BUSY)
async def show_health(request: Request, server: ServerDep, response: Response) -> Health:
    """Return 200 while new work is taken, else 503."""
    ready = server.batcher.alive
    response.status_code = 200 if ready else 503
    indexes = None
    if has_key(request.scope):
        indexes = [
            IndexHealth(
                name=name,
                version=index.version,
                documents=len(index.index),
                trouble=server.watch.troubles.get(name),
            )
            for name, index in server.indexes.items()
        ]
    return Health(live=True, ready=ready, indexes=indexes)


@_HEALTH_ROUTER.get("/metrics", response_class=Response)
async def show_metrics(server: ServerDep) -> Response:
    """Return counts and times in Prometheus' text format."""
    return Response(server.metrics.show(), media_type=CONTENT_TYPE_LATEST)


class _PageFiles(StaticFiles):
    """The files of the pages, sent with ``HEADERS``."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, or 304 where the browser has it."""
        answer = await super().get_response(path, scope)
        answer.headers.update(HEADERS)
        return answer


@_PAGES_ROUTER.get("/")
async def show_page() -> FileResponse:
    """Return the page at /."""
    return FileResponse(STATIC / "index.html", headers=HEADERS)


@_PAGES_ROUTER.get("/docs")
async def show_docs(request: Request) -> HTMLResponse:
    """Return a page that describes every route."""
    return HTMLResponse(render_docs(request.app.openapi()), headers=HEADERS)


def render_docs(spec: Mapping[str, Any]) -> str:
    """Return an OpenAPI description as one HTML page that loads nothing but its style sheet."""
    info = spec["info"]
    schemas = spec.get("components", {}).get("schemas", {})
    sections = [
        _section(method.upper(), path, route, schemas)
        for path, routes in spec["paths"].items()
        for method, route in routes.items()
    ]
    title = html.escape(info["title"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}: API</title><link rel="stylesheet" href="/static/docs.css"></head><body>'
        f"<header><h1>{title}</h1><p>{html.escape(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p></header>'
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def _section(method: str, path: str, route: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
    sent = _resolve(body.get("schema", {}), schemas)
    good = route["responses"].get("200", {}).get("content", {}).get("application/json", {})
    got = _resolve(good.get("schema", {}), schemas)
    described = html.escape(route.get("description", ""))
    parts = [
        f"<section><h2><code>{method} {html.escape(path)}</code></h2><p>{described}</p>",
        _table("Send", sent, schemas),
        _table("Get", got, schemas),
        _errors(route["responses"]),
    ]
    return "".join(parts) + "</section>"


def _table(caption: str, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Return the fields of an object as a table, nothing where there are none."""
    properties = schema.get("properties")
    if not properties:
        return ""
    required = schema.get("required", [])
    rows = []
    for name, field in properties.items():
        default = "required" if name in required else json.dumps(field.get("default"))
        rows.append(
            f'<tr><th scope="row"><code>{html.escape(name)}</code></th>'
            f"<td>{html.escape(_describe_type(field, schemas))}</td>"
            f"<td>{html.escape(default) if caption == 'Send' else ''}</td>"
            f"<td>{html.escape(field.get('description', ''))}</td></tr>"
        )
    return (
        f"<h3>{caption}</h3><table><thead><tr><th>Field</th><th>Type</th>"
        f"<th>{'Default' if caption == 'Send' else ''}</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _errors(responses: Mapping[str, Any]) -> str:
    items = [
        f"<li><code>{status}</code> {html.escape(response['description'])}</li>"
        for status, response in responses.items()
        if status != "200"
    ]
    return f"<details><summary>Errors</summary><ul>{''.join(items)}</ul></details>" if items else ""


def _resolve(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = schemas.get(name, schema)
    return found


def _describe_type(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """Return a type in words, such as "string or list of string"."""
    if "anyOf" in schema:
        words = (_describe_type(one, schemas) for one in schema["anyOf"])
        return " or ".join(dict.fromkeys(words))
    if "$ref" in schema:
        inner = _resolve(schema, schemas).get("properties", {})
        return f"object: {', '.join(inner)}"
    if "enum" in schema or "const" in schema:
        return " or ".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_describe_type(schema.get('items', {}), schemas)}"
    return str(schema.get("type", "anything"))


def build_app(server: Server) -> FastAPI:
    """Return the application; it starts and stops the server's threads with itself."""

    @asynccontextmanager
    async def run_threads(app: FastAPI) -> AsyncIterator[None]:
        server.start()
        log_event("started", models=len(server.models), indexes=len(server.indexes))
        yield
        await asyncio.to_thread(server.stop)
        log_event("stopped")

    app = FastAPI(
        title="millpond",
        description="Embeddings as OpenAI, TEI and Ollama serve them, reranking, and search.",
        version=server.version or "0",
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        lifespan=run_threads,
    )
    app.state.server = server
    for router in (
        openai.ROUTER,
        search.ROUTER,
        documents.ROUTER,
        rerank.ROUTER,
        tei.ROUTER,
        ollama.ROUTER,
        _HEALTH_ROUTER,
        _PAGES_ROUTER,
    ):
        app.include_router(router)
    app.mount("/static", _PageFiles(directory=STATIC), name="static")
    install_handlers(app)
    _add_middleware(app, server)
    return app


def _add_middleware(app: FastAPI, server: Server) -> None:
    """Add what every request passes; the last added is the outermost."""
    settings = server.settings
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(KeyGate, keys=settings.keys)
    if settings.local_only:
        app.add_middleware(HostGate)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(Recorder, metrics=server.metrics)
