"""``/health`` for supervisors, ``/metrics`` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from embedder.serving.server import ServerDep

__all__ = ["ROUTER"]

ROUTER = APIRouter(tags=["Operation"])


class Health(BaseModel):
    """Whether the process answers, and whether it takes new work."""

    live: bool
    ready: bool


@ROUTER.get("/health/live")
async def show_live() -> Health:
    """Return 200 for as long as the process answers at all."""
    return Health(live=True, ready=True)


@ROUTER.get("/health/ready", responses={503: {"description": "No new work is taken."}})
@ROUTER.get("/health", responses={503: {"description": "No new work is taken."}})
async def show_health(server: ServerDep, response: Response) -> Health:
    """Return 200 while new work is taken, else 503."""
    ready = server.batcher.alive
    response.status_code = 200 if ready else 503
    return Health(live=True, ready=ready)


@ROUTER.get("/metrics", response_class=Response)
async def show_metrics(server: ServerDep) -> Response:
    """Return counts and times in Prometheus' text format."""
    return Response(server.metrics.show(), media_type=CONTENT_TYPE_LATEST)
