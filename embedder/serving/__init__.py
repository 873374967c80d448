"""Serves models and indexes over HTTP. Needs FastAPI, uvicorn and prometheus_client, not torch.

``embedder.serving.from_embedder`` makes a served model of an Embedder. Indexes come as
``VectorIndex``: this package never imports ``indexes``.
"""

from embedder.serving.app import build_app, run_app
from embedder.serving.encoder_thread import EncoderThread
from embedder.serving.logs import JsonFormatter
from embedder.serving.security import is_loopback, parse_keys, read_keys
from embedder.serving.served import Role, ServedIndex, ServedModel
from embedder.serving.server import Server
from embedder.serving.settings import ServerSettings

__all__ = [
    "build_app",
    "run_app",
    "Server",
    "ServerSettings",
    "ServedModel",
    "ServedIndex",
    "EncoderThread",
    "Role",
    "read_keys",
    "parse_keys",
    "is_loopback",
    "JsonFormatter",
]
