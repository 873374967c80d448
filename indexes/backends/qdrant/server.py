"""Collections of a Qdrant server: made, filled, checked.

A build makes a collection of its own, NAME-1a2b3c4d, and moves the alias NAME to it once it is
whole. The manifest names the collection and not the alias, so that a reader keeps searching what
it has opened. What earlier or killed builds left under the same name is removed by the next.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any
from uuid import uuid4

import numpy as np

from indexes.backends.backend import BuildRequest
from indexes.backends.qdrant.connection import Connection
from indexes.backends.qdrant.options import Factory, QdrantOptions
from indexes.backends.qdrant.points import ClientFields, Payload, Point, read_batches
from indexes.storage.manifest import Manifest
from indexes.storage.vectors import Shards
from retrieval import Fingerprint
from retrieval.errors import (
    FingerprintError,
    IndexCorruptError,
    IndexExistsError,
    StorageError,
    UsageError,
)

OURS = "millpond"
"""The key of the collection's metadata under which we keep ours."""

LONGEST_POLL_SECONDS = 5.0

COSINE, DOT = "Cosine", "Dot"


def check_name(connection: Connection, options: QdrantOptions) -> str | None:
    """Return the collection that now has the wanted name, None if it is free.

    Raises
    ------
    IndexExistsError : it holds an index of ours and ``options.overwrite`` is false.
    UsageError : it is a collection that millpond did not make.
    StorageError : the server is down or refuses the key; asked once, without retries.
    """
    name = options.collection
    aliases: list[Any] = connection.run(lambda client: client.get_aliases().aliases, attempts=1)
    named = (str(a.collection_name) for a in aliases if a.alias_name == name)
    target = next(named, None)
    taken = target or (name if name in _collection_names(connection) else None)
    if taken is None:
        return None
    ours = _read_ours(connection, taken)
    if target is None or ours is None:
        raise UsageError(
            f"{options.url} has a collection {name!r} that millpond did not make; it is left "
            "alone. Name another collection in the --store file."
        )
    if not options.overwrite:
        model = ours.get("fingerprint", {}).get("model")
        raise IndexExistsError(
            f"{options.url} already has a collection {name!r} of {ours.get('documents')} "
            f"documents by {model!r}. Type --overwrite to replace it, or name another "
            "collection in the --store file."
        )
    return target


def choose_distance(vectors: Shards) -> str:
    """Return COSINE for vectors of length 1, as other programs expect it; otherwise DOT.

    Qdrant divides vectors by their length for the one, which may change no more than the last
    digits: less than the ranking allows for.
    """
    allowed = math.sqrt(vectors.dimension) * 2.0**-24
    for block in vectors:
        lengths = np.linalg.norm(block.astype(np.float64), axis=1)
        if np.abs(lengths - 1).max(initial=0) > allowed:
            return DOT
    return COSINE


def client_fields(options: QdrantOptions) -> ClientFields:
    """Return where a collection keeps what other programs read."""
    return ClientFields(options.text_field if options.store_text else "", options.metadata_field)


def build_collection(
    connection: Connection,
    options: QdrantOptions,
    factory: Factory,
    request: BuildRequest,
    distance: str,
    *,
    keep: frozenset[str] = frozenset(),
) -> str:
    """Upload all documents to a new collection and return its name, once it is searchable.

    Parameters
    ----------
    distance : COSINE or DOT.
    keep : collections that are still read; other leftovers of this name are removed.

    Raises
    ------
    IndexExistsError, UsageError : see ``check_name``.
    StorageError : the server fails; the unfinished collection is removed again if it can be.
    """
    replaced = check_name(connection, options)
    _remove_leftovers(connection, options.collection, keep | {replaced or ""})
    name = f"{options.collection}-{uuid4().hex[:8]}"
    expected = len(request.vectors) if request.live is None else int(request.live.sum())
    ours = {
        "name": options.collection,
        "documents": expected,
        "fingerprint": request.fingerprint.to_json(),
        "complete": False,
    }
    try:
        dimension = request.vectors.dimension
        create_collection(connection, name, options, factory, dimension, ours, distance)
        if _read_ours(connection, name) is None:
            raise UsageError(
                f"The Qdrant server {options.url} keeps no metadata of a collection, so the "
                "model could not be checked. Update the server to 1.16 or newer."
            )
        clients = client_fields(options)
        _index_fields(connection, name, clients.list_indexes(request.schema))
        payload = Payload(request.schema, request.live, clients)
        batches = read_batches(request.vectors, request.documents, payload)
        upload(connection, name, batches, options.parallel)
        _wait_for_green(connection, name, options.green_seconds)
        _check_count(connection, name, expected)
        whole = {OURS: {**ours, "complete": True}}
        connection.run(lambda client: client.update_collection(name, metadata=whole))
        _point_alias(connection, options.collection, name, replaced)
    except BaseException:
        with suppress(Exception):  # an error is on its way already, and says more
            connection.run(lambda client: client.delete_collection(name), attempts=1)
        raise
    return name


def create_collection(
    connection: Connection,
    name: str,
    options: QdrantOptions,
    factory: Factory,
    dimension: int,
    ours: dict[str, Any],
    distance: str = DOT,
) -> None:
    """Make an empty collection for vectors of length D."""
    from qdrant_client import models

    vectors = models.VectorParams(
        size=dimension, distance=models.Distance(distance), on_disk=options.vectors_on_disk or None
    )
    graph = models.HnswConfigDiff(m=0)
    if not factory.exact:
        graph = models.HnswConfigDiff(
            m=factory.m,
            ef_construct=factory.ef_construct,
            on_disk=options.graph_on_disk or None,
        )
    quantization: Any = None
    if options.quantization == "int8":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        quantization = models.ScalarQuantization(scalar=scalar)
    elif options.quantization == "binary":
        binary = models.BinaryQuantizationConfig(always_ram=True)
        quantization = models.BinaryQuantization(binary=binary)

    def create(client: Any) -> None:
        if client.collection_exists(name):  # an earlier attempt got through after all
            client.delete_collection(name)
        client.create_collection(
            name,
            vectors_config=vectors,
            hnsw_config=graph,
            quantization_config=quantization,
            shard_number=options.shards,
            replication_factor=options.replicas,
            on_disk_payload=options.payload_on_disk or None,
            metadata={OURS: ours},
        )

    connection.run(create)


def _index_fields(connection: Connection, name: str, indexes: dict[str, str]) -> None:
    """Make the payload indexes, of these kinds by path, before points arrive."""

    def create(client: Any) -> None:
        for path, kind in indexes.items():
            client.create_payload_index(name, path, field_schema=kind, wait=True)

    connection.run(create)


def upload(
    connection: Connection, name: str, batches: Iterator[list[Point]], parallel: int = 1
) -> None:
    """Send every batch, ``parallel`` of them at a time, and wait for each to be stored."""
    from qdrant_client import models

    def send(batch: list[Point]) -> None:
        points = [models.PointStruct(id=i, vector=v.tolist(), payload=p) for i, v, p in batch]
        connection.run(lambda client: client.upsert(name, points=points, wait=True))

    if parallel == 1:
        for batch in batches:
            send(batch)
        return
    with ThreadPoolExecutor(parallel) as pool:
        running: set[Future[None]] = set()
        try:
            for batch in batches:
                if len(running) >= 2 * parallel:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                running.add(pool.submit(send, batch))
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def check_collection(connection: Connection, name: str, manifest: Manifest) -> None:
    """Raise unless collection ``name`` is the one that the manifest describes.

    Raises
    ------
    FingerprintError : another model made its vectors.
    IndexCorruptError : it is gone, unfinished, or of another dimension or size.
    StorageError : the server is down or refuses the key.
    """
    where = f"The collection {name!r} at {connection.place}"
    again = "Index the corpus again with --overwrite."
    if not connection.run(lambda client: client.collection_exists(name), attempts=2):
        raise IndexCorruptError(f"{where} is gone. {again}")
    info = connection.run(lambda client: client.get_collection(name))
    ours = _ours(info)
    if ours is None or not ours.get("complete"):
        raise IndexCorruptError(f"{where} is not a finished index of millpond. {again}")
    try:
        stored = Fingerprint.from_json(ours["fingerprint"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IndexCorruptError(f"{where} has damaged metadata: {error}. {again}") from None
    if stored.digest != manifest.fingerprint.digest:
        raise FingerprintError(
            f"{where} was made with {stored.model!r}, the index folder with "
            f"{manifest.fingerprint.model!r}: "
            f"{'; '.join(stored.differences(manifest.fingerprint))}. {again}"
        )
    dimension = getattr(info.config.params.vectors, "size", None)
    if dimension != manifest.dimension:
        raise IndexCorruptError(
            f"{where} holds vectors of length {dimension}; the manifest states "
            f"{manifest.dimension}. {again}"
        )
    _check_count(connection, name, manifest.findable)


def _collection_names(connection: Connection) -> list[str]:
    found = connection.run(lambda client: client.get_collections().collections)
    return [collection.name for collection in found]


def _read_ours(connection: Connection, name: str) -> dict[str, Any] | None:
    return _ours(connection.run(lambda client: client.get_collection(name)))


def _ours(info: Any) -> dict[str, Any] | None:
    """Return the entry of millpond in the metadata of a collection."""
    ours = (info.config.metadata or {}).get(OURS)
    return ours if isinstance(ours, dict) else None


def _remove_leftovers(connection: Connection, name: str, keep: frozenset[str]) -> None:
    pattern = re.compile(re.escape(name) + r"-[0-9a-f]{8}")
    ours = {
        found: _read_ours(connection, found)
        for found in _collection_names(connection)
        if found not in keep and pattern.fullmatch(found)
    }

    def delete(client: Any) -> None:
        for found, stated in ours.items():
            if stated is not None and stated.get("name") == name:
                client.delete_collection(found)

    connection.run(delete)


def _check_count(connection: Connection, name: str, expected: int) -> None:
    stored = connection.run(lambda client: client.count(name, exact=True).count)
    if stored != expected:
        raise IndexCorruptError(
            f"The collection {name!r} at {connection.place} holds {stored} points; expected "
            f"{expected}. Index the corpus again with --overwrite."
        )


def _wait_for_green(connection: Connection, name: str, most_seconds: int) -> None:
    """Return once the server has indexed everything it wants to index."""
    started = time.monotonic()
    poll = 0.1
    while True:
        info = connection.run(lambda client: client.get_collection(name))
        status = str(getattr(info.status, "value", info.status))
        if status == "green":
            return
        if status == "red":
            problem = getattr(info.optimizer_status, "error", info.optimizer_status)
            raise StorageError(
                f"The Qdrant server {connection.place} cannot index {name!r}: {problem}. "
                "See the server's log."
            )
        if time.monotonic() - started > most_seconds:
            raise StorageError(
                f"The Qdrant server {connection.place} was still indexing {name!r} after "
                f"{most_seconds} seconds (status {status}). Give it more memory, or more time."
            )
        time.sleep(poll)
        poll = min(2 * poll, LONGEST_POLL_SECONDS)


def _point_alias(connection: Connection, alias: str, name: str, replaced: str | None) -> None:
    """Let the alias name this collection, in one step of the server."""
    from qdrant_client import models

    create = models.CreateAlias(collection_name=name, alias_name=alias)
    operations: list[Any] = [models.CreateAliasOperation(create_alias=create)]
    if replaced is not None:
        drop = models.DeleteAlias(alias_name=alias)
        operations.insert(0, models.DeleteAliasOperation(delete_alias=drop))
    connection.run(lambda client: client.update_collection_aliases(operations))
