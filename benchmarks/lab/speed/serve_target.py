"""A server process for ``benchmarks.lab.speed.serve``: ours, or a naive one to compare it with.

    python -m benchmarks.lab.speed.serve_target millpond --model millpond-135m

Prints its port and serves until SIGTERM. The naive server is what one writes first: each request
is one call of the encoder, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import socket
from collections.abc import Sequence

import uvicorn
from fastapi import Body, FastAPI

from benchmarks.lab.attack.serve import serve_hashes
from embedder.serving import (
    EncoderThread,
    ServedModel,
    Server,
    ServerSettings,
    build_app,
    run_app,
)
from retrieval.protocols import Vectors

DRY_RUN = "hash"
"""Instead of a model: vectors that are hashes of words, to try the script itself."""


def load_model(name: str) -> ServedModel:
    """Return the model of this name, or the hashing one."""
    if name == DRY_RUN:
        return serve_hashes()
    from embedder import Embedder
    from embedder.serving import serve_embedder

    return serve_embedder(Embedder.load(name))


def encode_texts(model: ServedModel, texts: Sequence[str]) -> Vectors:
    """Return the vectors of texts as documents, without a server."""
    return model.encoder.encode_tokens(model.tokenize(texts, "document").rows)


def build_naive_app(model: ServedModel) -> FastAPI:
    """Return an app whose /v1/embeddings encodes each request by itself."""
    app = FastAPI()
    lock = asyncio.Lock()

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/embeddings")
    async def embed(body: dict[str, object] = Body()) -> dict[str, object]:  # noqa: B008
        given = body["input"]
        texts = [str(text) for text in given] if isinstance(given, list) else [str(given)]
        async with lock:
            vectors = await asyncio.to_thread(encode_texts, model, texts)
        rows = [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
        data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
        return {"data": data}

    return app


def main() -> None:
    """Load the model, print the port, serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=("millpond", "naive"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-tokens", type=int, default=ServerSettings.batch_tokens)
    options = parser.parse_args()
    if options.kind == "naive":
        app = build_naive_app(load_model(options.model))
    else:
        thread = EncoderThread()
        model = thread.call(lambda: load_model(options.model))
        settings = ServerSettings(batch_tokens=options.batch_tokens)
        app = build_app(Server([model], [], settings, thread=thread))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        if options.kind == "naive":
            uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run([listener])
        else:
            run_app(app, listener)


if __name__ == "__main__":
    main()
