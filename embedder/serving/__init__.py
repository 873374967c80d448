"""Serves models and indexes over HTTP. Needs FastAPI, uvicorn and prometheus_client, not torch.

``serve_embedder`` makes a served model of an Embedder. Indexes come as ``VectorIndex``: this
package never imports ``indexes``.
"""

from embedder.serving.app import build_app
from embedder.serving.batching import EncoderThread
from embedder.serving.metrics import JsonFormatter
from embedder.serving.middleware import is_loopback, parse_keys, read_keys
from embedder.serving.running import make_config, run_app
from embedder.serving.served import (
    Role,
    ServedIndex,
    ServedModel,
    serve_embedder,
)
from embedder.serving.server import Server
from embedder.serving.settings import ServerSettings

__all__ = [
    "build_app",
    "make_config",
    "run_app",
    "Server",
    "ServerSettings",
    "ServedModel",
    "ServedIndex",
    "EncoderThread",
    "Role",
    "serve_embedder",
    "read_keys",
    "parse_keys",
    "is_loopback",
    "JsonFormatter",
]
