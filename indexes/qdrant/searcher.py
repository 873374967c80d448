"""Searches a collection of a Qdrant server, or of ``:memory:``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from indexes.filter_qdrant import make_filter
from indexes.qdrant.connection import Connection
from indexes.qdrant.options import SEARCH_BREADTH
from indexes.qdrant.points import ROW
from indexes.ranking import Found
from indexes.selection import Selection
from retrieval import Vectors

__all__ = ["ServerSearcher"]

OVERSAMPLING = 2.0
QUERIES_AT_ONCE = 64


class ServerSearcher:
    """Asks a collection for candidates; implements ``Candidates``."""

    def __init__(self, connection: Connection, name: str, *, quantized: bool = False) -> None:
        self._connection = connection
        self._name = name
        self._quantized = quantized

    def __call__(
        self, queries: Vectors, wanted: int, *, exact: bool, selection: Selection
    ) -> list[Found]:
        """Return, for each query, at most ``wanted`` scores and rows, best first."""
        from qdrant_client import models

        params = self._params(wanted, exact)
        matching = None
        if selection.plan is not None:
            matching = models.Filter.model_validate(make_filter(selection.plan))
        found: list[Found] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            requests = [
                models.QueryRequest(
                    query=vector, filter=matching, limit=wanted, params=params, with_payload=[ROW]
                )
                for vector in queries[start : start + QUERIES_AT_ONCE].tolist()
            ]
            answers = self._connection.run(_query(self._name, requests))
            found.extend(_read_answer(answer.points) for answer in answers)
        return found

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


def _query(name: str, requests: list[Any]) -> Callable[[Any], list[Any]]:
    return lambda client: list(client.query_batch_points(name, requests=requests))


def _read_answer(points: list[Any]) -> Found:
    scores = np.array([point.score for point in points], dtype=np.float32)
    return scores, np.array([point.payload[ROW] for point in points], dtype=np.int64)
