"""The Qdrant backend: the engine in the folder, a server, or memory behind one ``Backend``.

Beside documents and vectors, the index folder holds::

    FOLDER/qdrant/store.json    where the points are
    FOLDER/qdrant/shard/        the engine's files, if they live in the folder
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from indexes.backends.backend import Backend, BuildRequest, BuildResult, OpenRequest, SearchEngine
from indexes.backends.qdrant.connection import Connection
from indexes.backends.qdrant.edge import EdgeSearcher, build_shard
from indexes.backends.qdrant.filters import make_filter
from indexes.backends.qdrant.options import (
    EMBEDDED,
    MEMORY,
    SEARCH_BREADTH,
    SERVER,
    Factory,
    QdrantOptions,
    load_client,
    load_edge,
    origin,
)
from indexes.backends.qdrant.points import ROW, ClientFields, Payload, read_batches
from indexes.backends.qdrant.server import (
    COSINE,
    build_collection,
    check_collection,
    check_name,
    choose_distance,
    client_fields,
    create_collection,
    upload,
)
from indexes.search.ranking import Candidates, Found
from indexes.search.selection import Selection
from indexes.storage.manifest import Manifest, read_manifest
from retrieval import Scalar, Vectors
from retrieval.errors import IndexCorruptError, MillpondError
from retrieval.filters import Schema

IN_FOLDER = QdrantOptions()

FOLDER_NAME = "qdrant"
STORE_ROLE = "qdrant/store"
STORE_NAME = "store.json"
SHARD_NAME = "shard"
MEMORY_COLLECTION = "millpond"
STORED_COLLECTION = "stored_collection"
DISTANCE = "distance"
OVERSAMPLING = 2.0
QUERIES_AT_ONCE = 64
ATTEMPTS = 3
"""Somebody waits: a server that is down is told within two seconds."""


def configured_backend(options: QdrantOptions = IN_FOLDER) -> Backend:
    """Return the Qdrant backend for these options; by default the engine in the folder."""
    return Backend(
        # The first is the role of a file in the manifest, the second its top-level name.
        files={STORE_ROLE: FOLDER_NAME},
        check=partial(_check, options),
        build=partial(_build, options),
        open=partial(_open, options),
        like=_like,
    )


def _like(manifest: Manifest) -> Backend:
    """Return the backend that an index was built with, to build its next version."""
    return configured_backend(replace(QdrantOptions.from_manifest(manifest), overwrite=True))


def _check(options: QdrantOptions, dimension: int, factory: str) -> None:
    """Raise the errors that can be found before anything is embedded."""
    Factory.parse(factory, dimension)
    if options.mode == EMBEDDED:
        load_edge()
        return
    load_client()
    if options.mode == SERVER:
        with Connection(options) as connection:
            check_name(connection, options)


def _build(options: QdrantOptions, request: BuildRequest) -> BuildResult:
    """Fill the engine or the server, and write ``qdrant/`` in the folder."""
    vectors = request.vectors
    factory = Factory.parse(request.factory, vectors.dimension)
    folder = request.folder / FOLDER_NAME
    folder.mkdir()
    settings: dict[str, Scalar] = {**options.settings(), **factory.settings()}
    libraries = {}
    if options.mode == EMBEDDED:
        payload = Payload(request.schema, request.live)
        build_shard(folder / SHARD_NAME, factory, vectors, request.documents, payload)
        libraries["qdrant-edge-py"] = metadata.version("qdrant-edge-py")
    else:
        libraries["qdrant-client"] = metadata.version("qdrant-client")
    if options.mode == SERVER:
        distance = choose_distance(vectors)
        settings[DISTANCE] = distance
        settings[STORED_COLLECTION] = _fill_server(options, factory, request, distance)
    content = json.dumps({"settings": settings}, indent=2, ensure_ascii=False) + "\n"
    (folder / STORE_NAME).write_text(content, encoding="utf-8")
    return BuildResult(settings, libraries, exact=factory.exact)


def _fill_server(
    options: QdrantOptions, factory: Factory, request: BuildRequest, distance: str
) -> str:
    keep = set()
    with suppress(MillpondError):  # the folder holds no index yet
        keep.add(str(read_manifest(request.folder.parent).settings.get(STORED_COLLECTION)))
    with Connection(options) as connection:
        kept = frozenset(keep)
        return build_collection(connection, options, factory, request, distance, keep=kept)


def _open(configured: QdrantOptions, request: OpenRequest) -> SearchEngine:
    """Return the search engine; a key that was configured for its server is used again."""
    manifest = request.manifest
    options = QdrantOptions.from_manifest(manifest)
    if options.url and configured.url and origin(options.url) == origin(configured.url):
        options = replace(options, api_key=configured.api_key, received=configured.received)
    factory = Factory.parse(manifest.factory, manifest.dimension)
    candidates: Candidates
    if options.mode == EMBEDDED:
        candidates = _open_embedded(request.folder, manifest)
    elif options.mode == MEMORY:
        candidates = _load_into_memory(options, factory, request)
    else:
        candidates = _open_server(options, manifest)
    return SearchEngine(candidates, factory.exact)


def _open_embedded(folder: Path, manifest: Manifest) -> EdgeSearcher:
    place = (folder / manifest.files[STORE_ROLE].name).parent
    path = place / SHARD_NAME
    load_edge()
    searcher = EdgeSearcher(path)
    if searcher.count() != manifest.findable:
        raise IndexCorruptError(
            f"{path} holds {searcher.count()} points, the manifest states {manifest.findable}. "
            "Index the corpus again with --overwrite."
        )
    return searcher


def _load_into_memory(
    options: QdrantOptions, factory: Factory, request: OpenRequest
) -> ServerSearcher:
    """Upload the folder's vectors to a Qdrant in this process; for tests and small corpora."""
    manifest = request.manifest
    payload = Payload(manifest.schema, request.live)
    connection = Connection(options)
    create_collection(connection, MEMORY_COLLECTION, options, factory, manifest.dimension, {})
    batches = read_batches(request.vectors, request.documents, payload)
    upload(connection, MEMORY_COLLECTION, batches)
    return ServerSearcher(connection, MEMORY_COLLECTION)


def _open_server(options: QdrantOptions, manifest: Manifest) -> ServerSearcher:
    name = str(manifest.settings.get(STORED_COLLECTION))
    connection = Connection(options)
    try:
        check_collection(connection, name, manifest)
    except BaseException:
        connection.close()
        raise
    return ServerSearcher(
        connection,
        name,
        quantized=options.quantization != "none",
        cosine=manifest.settings.get(DISTANCE) == COSINE,
        clients=client_fields(options),
        schema=manifest.schema,
    )


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
            condition = make_filter(selection.plan)
            if self._clients is not None:
                condition = self._clients.move_paths(condition, self._schema)
            matching = models.Filter.model_validate(condition)
        found: list[Found] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            requests = [
                models.QueryRequest(
                    query=vector, filter=matching, limit=wanted, params=params, with_payload=[ROW]
                )
                for vector in queries[start : start + QUERIES_AT_ONCE].tolist()
            ]
            answers = self._connection.run(
                partial(_ask, name=self._name, requests=requests), attempts=ATTEMPTS
            )
            found.extend(_read_answer(answer.points) for answer in answers)
        if not self._cosine:
            return found
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1).astype(np.float32)
        return [(scores * n, rows) for (scores, rows), n in zip(found, lengths, strict=True)]

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


def _ask(client: Any, name: str, requests: list[Any]) -> list[Any]:
    return list(client.query_batch_points(name, requests=requests))


def _read_answer(points: list[Any]) -> Found:
    scores = np.array([point.score for point in points], dtype=np.float32)
    return scores, np.array([point.payload[ROW] for point in points], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection at one moment.

    Attributes
    ----------
    url, name : where it is; the name is that of the collection and not of its alias.
    points : counted exactly.
    status : "green"; "yellow" while the server indexes; "grey" until it begins to, after it was
        started again; "red" where it cannot.
    problem : what the server says about a "red" one; else empty.
    indexed_vectors : how many the graph holds; None where the server does not tell.
    """

    url: str
    name: str
    points: int
    status: str
    problem: str = ""
    indexed_vectors: int | None = None


def read_collection_state(manifest: Manifest) -> CollectionState | None:
    """Return the state of the collection that holds this index; None if no server holds it.

    Raises
    ------
    StorageError : the server is down, refuses the key, or has no such collection.
    UsageError : the server is elsewhere, and only the manifest names it.
    IndexCorruptError : the manifest does not tell where the vectors are.
    """
    if manifest.backend != "qdrant":
        return None
    options = QdrantOptions.from_manifest(manifest)
    if options.mode != SERVER:
        return None
    name = manifest.settings.get(STORED_COLLECTION)
    if not isinstance(name, str):
        raise IndexCorruptError(
            f"The manifest names no collection at {options.url}. Index the corpus again with "
            "--overwrite."
        )
    with Connection(options) as connection:
        info = connection.run(lambda client: client.get_collection(name), attempts=2)
        points = connection.run(lambda client: client.count(name, exact=True).count)
    return CollectionState(
        url=options.url,
        name=name,
        points=points,
        status=str(getattr(info.status, "value", info.status)),
        problem=str(getattr(info.optimizer_status, "error", None) or ""),
        indexed_vectors=getattr(info, "indexed_vectors_count", None),
    )
