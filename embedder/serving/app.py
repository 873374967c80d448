"""Builds the web application, and runs it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from embedder.serving import health_api, openai_api, pages, search_api, tei_api
from embedder.serving.errors import install_handlers
from embedder.serving.logs import log_event
from embedder.serving.middleware import BodyLimit, Recorder
from embedder.serving.security import HostGate, KeyGate
from embedder.serving.server import Server

__all__ = ["build_app", "run_app"]

SWITCH_SECONDS = 0.0005
_IDLE_CONNECTION_SECONDS = 75  # above the minute after which proxies give up idle connections


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
        description="Embeddings as OpenAI and TEI serve them, and search in millpond's indexes.",
        version=server.version or "0",
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        lifespan=run_threads,
    )
    app.state.server = server
    for module in (openai_api, search_api, tei_api, health_api, pages):
        app.include_router(module.ROUTER)
    app.mount("/static", pages.PageFiles(directory=pages.STATIC), name="static")
    install_handlers(app)
    _add_middleware(app, server)
    return app


def run_app(app: FastAPI, listener: socket.socket) -> None:
    """Answer requests at a listening socket until SIGINT or SIGTERM; finish what was accepted.

    A second SIGINT ends at once.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_CONNECTION_SECONDS,
        ws="none",
        lifespan="on",
    )
    # A burst of replies would keep Python's lock from the encoder for 5 ms after each of its steps.
    sys.setswitchinterval(SWITCH_SECONDS)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises SIGTERM once more after its graceful stop, which would be exit code 143.
        signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


def _add_middleware(app: FastAPI, server: Server) -> None:
    """Add what every request passes; the last added is the outermost."""
    settings = server.settings
    app.add_middleware(BodyLimit, longest_bytes=settings.body_bytes, seconds=settings.body_seconds)
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
