"""A collection of a server, or in this process' memory, asked for candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from indexes.backends.qdrant.clients import ClientFields
from indexes.backends.qdrant.connection import Connection
from indexes.backends.qdrant.filters import Json, make_filter
from indexes.backends.qdrant.options import SEARCH_BREADTH
from indexes.backends.qdrant.points import ROW
from indexes.search.ranking import Found
from indexes.search.selection import Selection
from retrieval import Vectors
from retrieval.filters import Schema
from retrieval.filters.plan import Plan

__all__ = ["ServerSearcher"]

OVERSAMPLING = 2.0
QUERIES_AT_ONCE = 64
ATTEMPTS = 3
"""Somebody waits: a server that is down is told within two seconds."""


class ServerSearcher:
    """Asks a collection for candidates; implements ``Candidates``.

    Parameters
    ----------
    quantized : whether it holds compressed vectors too.
    cosine : whether the server divides scores by the length of the query.
    clients, schema : where filters look for fields; None where all lie together.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        quantized: bool = False,
        cosine: bool = False,
        clients: ClientFields | None = None,
        schema: Schema | None = None,
    ) -> None:
        self._connection = connection
        self._name = name
        self._quantized = quantized
        self._cosine = cosine
        self._clients = clients
        self._schema = schema or Schema()

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows, best first."""
        from qdrant_client import models

        params = self._params(wanted, exact)
        matching = None
        if selection.plan is not None:
            matching = models.Filter.model_validate(self._make_filter(selection.plan))
        found: list[Found] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            requests = [
                models.QueryRequest(
                    query=vector, filter=matching, limit=wanted, params=params, with_payload=[ROW]
                )
                for vector in queries[start : start + QUERIES_AT_ONCE].tolist()
            ]
            answers = self._ask(requests)
            found.extend(_read_answer(answer.points) for answer in answers)
        if not self._cosine:
            return found
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1).astype(np.float32)
        return [(scores * n, rows) for (scores, rows), n in zip(found, lengths, strict=True)]

    def _make_filter(self, plan: Plan) -> Json:
        condition = make_filter(plan)
        if self._clients is None:
            return condition
        return self._clients.move_paths(condition, self._schema)

    def _ask(self, requests: list[Any]) -> list[Any]:
        return self._connection.run(
            lambda client: list(client.query_batch_points(self._name, requests=requests)),
            attempts=ATTEMPTS,
        )

    def _params(self, wanted: int, exact: bool) -> Any:
        from qdrant_client import models

        if self._connection.in_memory:
            return None  # always exact there, and warns about parameters
        if exact:
            ignored = models.QuantizationSearchParams(ignore=True) if self._quantized else None
            return models.SearchParams(exact=True, quantization=ignored)
        rescored = None
        if self._quantized:
            rescored = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        breadth = max(SEARCH_BREADTH, wanted)
        return models.SearchParams(hnsw_ef=breadth, quantization=rescored)


def _read_answer(points: list[Any]) -> Found:
    scores = np.array([point.score for point in points], dtype=np.float32)
    return scores, np.array([point.payload[ROW] for point in points], dtype=np.int64)
