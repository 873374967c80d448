"""Changes of served indexes: documents are embedded between the requests of other clients."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from embedder.serving.batching import Batcher, QueueFullError
from embedder.serving.served import ServedModel
from retrieval.errors import FailureError
from retrieval.protocols import Vectors
from retrieval.types import Fingerprint

__all__ = ["QueuedEncoder"]

_TOGETHER = 32
"""So few texts wait together, so that a query is not behind a thousand documents."""


class QueuedEncoder:
    """An ``Encoder`` whose texts wait in the server's queue like those of any client."""

    def __init__(self, model: ServedModel, batcher: Batcher) -> None:
        self._model, self._batcher = model, batcher
        self.dimension = model.encoder.dimension
        self.fingerprint: Fingerprint = model.encoder.fingerprint

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), with the document prompt; over-long texts are cut at the end."""
        parts = [
            self._encode(texts[start : start + _TOGETHER])
            for start in range(0, len(texts), _TOGETHER)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Refuse: a change asks nothing."""
        raise NotImplementedError

    def _encode(self, texts: Sequence[str]) -> Vectors:
        rows = self._model.tokenize(texts, "document").rows
        while True:
            try:
                return self._batcher.submit(self._model, rows).result.result()
            except QueueFullError as error:
                if not self._batcher.alive:
                    raise FailureError("The server stops; the index is as it was.") from None
                time.sleep(error.retry_seconds)
