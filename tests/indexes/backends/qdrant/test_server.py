"""What is sent to a Qdrant server, over HTTP to a fake one, and what its answers become."""

import json
import socket
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from qdrant_client.http.exceptions import ResponseHandlingException

from indexes import Index, read_manifest
from indexes.backends.qdrant import QdrantOptions, connection
from indexes.backends.qdrant import points as points_module
from indexes.backends.qdrant.connection import Connection, find_api_key
from indexes.backends.qdrant.points import point_id
from retrieval.errors import (
    FingerprintError,
    IndexCorruptError,
    IndexExistsError,
    StorageError,
    UsageError,
)
from tests.indexes import fakes


def with_changes(options, **changes):
    from dataclasses import replace

    return replace(options, **changes)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def folder(tmp_path, write_with, options, encoder, documents):
    """An index of 25 documents on the server."""
    write_with(options, encoder, documents, tmp_path / "i")
    return tmp_path / "i"


def one_collection(server):
    [name] = server.collections
    return name, server.collections[name]


def test_an_index_on_a_server_finds_its_documents(folder, server, encoder, documents):
    index = Index.open(folder)
    hits = index.search(encoder.encode_queries([d.content for d in documents]), 2)
    assert [(h[0].doc_id, h[0].text) for h in hits] == [(d.doc_id, d.text) for d in documents]
    assert Index.open(folder).check().documents == 25
    name, _ = one_collection(server)
    assert server.aliases == {"docs": name}
    assert sorted(path.name for path in folder.iterdir()) == [
        "documents",
        "fields.arrow",
        "lexical",
        "manifest.json",
        "qdrant",
        "vectors",
    ]
    assert [path.name for path in (folder / "qdrant").iterdir()] == ["store.json"]


def test_the_collection_is_made_for_exact_search_and_carries_the_fingerprint(
    folder, server, encoder
):
    name, collection = one_collection(server)
    body = dict(collection["body"])
    ours = body.pop("metadata")["millpond"]
    assert body == {"vectors": {"size": 16, "distance": "Cosine"}, "hnsw_config": {"m": 0}}
    assert ours == {
        "name": "docs",
        "documents": 25,
        "fingerprint": encoder.fingerprint.to_json(),
        "complete": True,
    }
    assert read_manifest(folder).settings["stored_collection"] == name


def test_every_option_reaches_the_server(tmp_path, write_with, server, options, encoder, documents):
    chosen = with_changes(
        options,
        shards=3,
        replicas=2,
        quantization="int8",
        vectors_on_disk=True,
        payload_on_disk=True,
        graph_on_disk=True,
    )
    write_with(chosen, encoder, documents, tmp_path / "i", factory="HNSW32,ef200")
    body = dict(one_collection(server)[1]["body"])
    del body["metadata"]
    assert body == {
        "vectors": {"size": 16, "distance": "Cosine", "on_disk": True},
        "hnsw_config": {"m": 32, "ef_construct": 200, "on_disk": True},
        "quantization_config": {"scalar": {"type": "int8", "always_ram": True}},
        "shard_number": 3,
        "replication_factor": 2,
        "on_disk_payload": True,
    }
    index = Index.open(tmp_path / "i")
    query = encoder.encode_queries([documents[0].content])
    index.search(query, 3)
    index.snapshot.as_exact().search(query, 3)
    params = [r.body["searches"][0]["params"] for r in server.sent("POST", "/query/batch")]
    assert params[-2:] == [
        {"hnsw_ef": 128, "quantization": {"rescore": True, "oversampling": 2.0}},
        {"exact": True, "quantization": {"ignore": True}},
    ]


def test_binary_quantization_is_asked_for(
    tmp_path, write_with, server, options, encoder, documents
):
    chosen = with_changes(options, quantization="binary")
    write_with(chosen, encoder, documents, tmp_path / "i", factory="HNSW")
    body = one_collection(server)[1]["body"]
    assert body["quantization_config"] == {"binary": {"always_ram": True}}


@pytest.mark.parametrize("parallel", [1, 3])
def test_points_arrive_once_in_batches_below_the_limit(
    tmp_path, write_with, server, options, encoder, documents, monkeypatch, parallel
):
    monkeypatch.setattr(points_module, "BATCH_BYTES", 3300)
    write_with(with_changes(options, parallel=parallel), encoder, documents, tmp_path / "i")
    batches = server.sent("PUT", "/points")
    # A point takes 120 + 16 * 25 + 101 to 109 bytes by our estimate, so 5 fit into 3300.
    assert sorted(len(batch.body["points"]) for batch in batches) == [5] * 5
    assert all(batch.size <= 3300 and "wait=true" in batch.query for batch in batches)
    points = sorted(
        (p for batch in batches for p in batch.body["points"]), key=lambda p: p["payload"]["row"]
    )
    assert [p["payload"] for p in points] == [
        {
            "doc_id": d.doc_id,
            "row": n,
            "page_content": d.text,
            "metadata": {**d.metadata, "title": d.title},
        }
        for n, d in enumerate(documents)
    ]
    assert [p["id"] for p in points] == [point_id(d.doc_id) for d in documents]
    stored = np.array([p["vector"] for p in points], dtype=np.float32)
    assert np.array_equal(stored, encoder.encode_documents([d.content for d in documents]))


def test_the_longest_points_stay_below_the_limit_of_a_server(tmp_path, monkeypatch):
    # The estimate must not be too small: floats with all their digits, ids of escaped letters.
    from indexes.storage.document_writer import DocumentWriter
    from indexes.storage.documents import DocumentStore
    from indexes.storage.vectors import Shards, VectorWriter
    from retrieval import Document

    monkeypatch.setattr(points_module, "BATCH_BYTES", 100_000)
    vectors = np.full((40, 500), -1.2345678806304932e-05, dtype=np.float32)
    for name in ("d", "v"):
        (tmp_path / name).mkdir()
    with VectorWriter(tmp_path / "v" / "00000.npy", 500) as shards:
        shards.append(vectors)
    with DocumentWriter(tmp_path / "d" / "00000.arrow") as writer:
        for number in range(40):
            writer.extend([Document("🦆" * 100 + str(number), "")])
    batches = list(
        points_module.read_batches(
            Shards(fakes.stored_in(tmp_path / "v"), 500),
            DocumentStore(fakes.stored_in(tmp_path / "d")),
            points_module.Payload(),
        )
    )
    sizes = [
        len(
            json.dumps(
                {"points": [{"id": i, "vector": v.tolist(), "payload": p} for i, v, p in batch]}
            )
        )
        for batch in batches
    ]
    assert len(sizes) > 1
    assert max(sizes) <= 100_000
    assert sum(len(batch) for batch in batches) == 40


def test_a_busy_server_is_asked_again(tmp_path, write_with, server, options, encoder, documents):
    server.failures.append(["PUT", "/points", 503, 2, {}])
    server.failures.append(["GET", "/collections", 429, 1, {"Retry-After": "0"}])
    write_with(options, encoder, documents, tmp_path / "i")
    assert len(server.sent("PUT", "/points")) == 3
    assert Index.open(tmp_path / "i").check().documents == 25


def test_pauses_double_and_end_in_one_line(server, options):
    server.failures.append(["GET", "/collections", 503, 99, {}])
    pauses = []
    connection = Connection(options, pause=pauses.append)
    with connection, pytest.raises(StorageError, match=r"cannot do this: not now \(503\)"):
        connection.run(lambda client: client.get_collections())
    # Six attempts, five pauses: 1, 2, 4, 8, 16 times the first.
    assert pauses == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016])


def test_a_search_does_not_ask_a_server_that_is_down_for_long(
    tmp_path, write_with, server, options, encoder, documents
):
    write_with(options, encoder, documents, tmp_path / "i")
    index = Index.open(tmp_path / "i")
    server.failures.append(["POST", "/query/batch", 503, 99, {}])
    with pytest.raises(StorageError, match="not now"):
        index.search(encoder.encode_queries(["x"]), 3)
    assert len(server.sent("POST", "/query/batch")) == 3  # two pauses, 1.5 s together
    server.failures.clear()
    assert index.search(encoder.encode_queries(["x"]), 3)[0]


@pytest.fixture
def silent_url():
    """A server that swallows what is sent to it, as a firewall may do."""
    with socket.socket() as listener, ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # the queue is full, and whoever comes later is not heard
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("grpc", [False, True])
def test_a_host_that_swallows_packets_is_told_soon_and_the_next_search_at_once(
    silent_url, grpc, monkeypatch
):
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    options = QdrantOptions(url=silent_url, collection="docs", grpc=grpc)
    calls = []

    def ask(client):
        calls.append(client)
        return client.count("docs")

    says = "UNAVAILABLE, asked 3 times" if grpc else r"no connection within 0.1 s, asked 3 times"
    clock = iter([0, 5, 10, 15, 29, 31, 32])
    with Connection(options, pause=lambda seconds: None, clock=lambda: next(clock)) as opened:
        for _ in range(2):
            with pytest.raises(StorageError, match=says):
                opened.run(ask, attempts=3)
        assert len(calls) == 3  # 15 s after it took 15 s to find out, the second one did not ask
        with pytest.raises(StorageError, match="No Qdrant server answers"):
            opened.run(ask, attempts=3)
        assert len(calls) == 4


def test_a_search_waits_for_one_answer_that_does_not_come_and_not_for_three(options):
    clock = iter([0, 60])
    calls = []

    def ask(client):
        calls.append(client)
        raise ResponseHandlingException(httpx.ReadTimeout("timed out"))

    with (
        Connection(options, clock=lambda: next(clock)) as opened,
        pytest.raises(StorageError, match=r"no answer within 60 s\)"),
    ):
        opened.run(ask, attempts=3)
    assert len(calls) == 1


def test_the_upload_ends_when_the_server_has_indexed(
    tmp_path, write_with, server, options, encoder, documents
):
    # The first status is read with the metadata, right after the collection was made.
    server.statuses = ["green", "yellow", "grey", "green"]
    write_with(options, encoder, documents, tmp_path / "i")
    assert server.statuses == []


def test_a_server_that_fails_to_index_is_named_and_the_collection_removed(
    tmp_path, write_with, server, options, encoder, documents
):
    server.statuses = ["green", "red"]
    with pytest.raises(StorageError, match="cannot index 'docs-.*server's log"):
        write_with(options, encoder, documents, tmp_path / "i")
    assert (server.collections, server.aliases) == ({}, {})
    assert not (tmp_path / "i" / "manifest.json").exists()


def test_a_server_that_never_ends_indexing_is_given_up(
    tmp_path, write_with, server, options, encoder, documents
):
    server.statuses = ["green", *["yellow"] * 9]
    with pytest.raises(StorageError, match="still indexing .* after 0 seconds"):
        write_with(with_changes(options, green_seconds=0), encoder, documents, tmp_path / "i")
    assert server.collections == {}


def test_lost_points_are_noticed(tmp_path, write_with, server, options, encoder, documents):
    server.loses_points = 2
    with pytest.raises(IndexCorruptError, match="holds 23 points; expected 25"):
        write_with(options, encoder, documents, tmp_path / "i")
    assert server.collections == {}


def test_a_name_that_is_taken_is_refused_before_anything_is_encoded(
    folder, tmp_path, write_with, options, documents
):
    encoder = fakes.HashingEncoder()
    with pytest.raises(IndexExistsError, match="'docs' of 25 documents by 'hash'.*--overwrite"):
        write_with(options, encoder, documents, tmp_path / "other")
    assert encoder.calls == 0


def test_a_collection_of_somebody_else_is_left_alone(
    tmp_path, write_with, server, options, encoder, documents
):
    server.collections["docs"] = {"body": {"vectors": {"size": 4, "distance": "Dot"}}, "points": {}}
    with pytest.raises(UsageError, match="millpond did not make; it is left alone"):
        write_with(with_changes(options, overwrite=True), encoder, documents, tmp_path / "i")
    assert list(server.collections) == ["docs"]


def test_readers_keep_the_replaced_collection_until_the_next_build(
    folder, server, write_with, options, encoder, documents
):
    first, _ = one_collection(server)
    reader = Index.open(folder)
    replacing = with_changes(options, overwrite=True)
    write_with(replacing, encoder, documents[:5], folder, overwrite=True)
    second = server.aliases["docs"]
    query = encoder.encode_queries([documents[20].content])
    assert reader.search(query, 1)[0][0].doc_id == "d20"
    assert len(Index.open(folder)) == 5
    assert set(server.collections) == {first, second}
    write_with(replacing, encoder, documents[:6], folder, overwrite=True)
    assert set(server.collections) == {second, server.aliases["docs"]}


def test_what_a_killed_build_left_is_removed_and_other_collections_are_not(
    tmp_path, write_with, server, options, encoder, documents
):
    def leave(name, metadata):
        body = {"vectors": {"size": 4, "distance": "Dot"}, "metadata": metadata}
        server.collections[name] = {"body": body, "points": {}}

    leave("docs-0123abcd", {"millpond": {"name": "docs", "complete": False}})
    leave("docs-0123abce", {})
    leave("docs-x-0123abcd", {"millpond": {"name": "docs-x", "complete": False}})
    write_with(options, encoder, documents, tmp_path / "i")
    assert set(server.collections) == {"docs-0123abce", "docs-x-0123abcd", server.aliases["docs"]}


def test_a_server_that_keeps_no_metadata_is_refused(
    tmp_path, write_with, server, options, encoder, documents
):
    server.keeps_metadata = False
    with pytest.raises(UsageError, match="Update the server to 1.16"):
        write_with(options, encoder, documents, tmp_path / "i")
    assert server.collections == {}


def change(collection, **changes):
    collection["body"]["metadata"]["millpond"].update(changes)


def test_a_collection_of_another_model_is_refused(folder, server):
    other = fakes.HashingEncoder(model="other").fingerprint
    change(one_collection(server)[1], fingerprint=other.to_json())
    with pytest.raises(FingerprintError, match="'other'.*model 'other' against 'hash'"):
        Index.open(folder)


def test_a_collection_that_is_gone_unfinished_or_of_another_size_is_corrupt(folder, server):
    name, collection = one_collection(server)
    collection["body"]["vectors"]["size"] = 8
    with pytest.raises(IndexCorruptError, match="vectors of length 8; the manifest states 16"):
        Index.open(folder)
    collection["body"]["vectors"]["size"] = 16
    collection["points"].popitem()
    with pytest.raises(IndexCorruptError, match="holds 24 points; expected 25"):
        Index.open(folder)
    change(collection, fingerprint={"model": "x"})
    with pytest.raises(IndexCorruptError, match="damaged metadata"):
        Index.open(folder)
    change(collection, complete=False)
    with pytest.raises(IndexCorruptError, match="not a finished index"):
        Index.open(folder)
    del server.collections[name]
    with pytest.raises(IndexCorruptError, match="is gone.*--overwrite"):
        Index.open(folder)


@pytest.mark.parametrize("variable", ["QDRANT_API_KEY", "MILLPOND_QDRANT_API_KEY"])
def test_the_key_comes_from_the_environment_and_is_kept_nowhere(
    tmp_path, write_with, server, options, encoder, documents, monkeypatch, variable
):
    server.key = "s3cret"
    monkeypatch.setenv(variable, "s3cret")
    monkeypatch.setenv("MILLPOND_QDRANT_URL", server.url)
    write_with(options, encoder, documents, tmp_path / "i")
    Index.open(tmp_path / "i")
    assert {request.headers["api-key"] for request in server.requests} == {"s3cret"}
    for path in (tmp_path / "i").rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes()
    assert "s3cret" not in json.dumps([c["body"] for c in server.collections.values()])


def test_the_key_of_the_options_goes_before_ours_before_qdrants(options, monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", "qdrant")
    assert find_api_key(options) == "qdrant"
    monkeypatch.setenv("MILLPOND_QDRANT_API_KEY", "millpond")
    assert find_api_key(options) == "millpond"
    assert find_api_key(with_changes(options, api_key="mine")) == "mine"


@pytest.mark.parametrize(
    ("key", "message"),
    [("", r"wants an API key \(401\)"), ("wrong", r"refuses this API key \(403\)")],
)
def test_a_wrong_key_is_one_line_and_not_tried_again(folder, server, monkeypatch, key, message):
    server.key = "s3cret"
    monkeypatch.setenv("QDRANT_API_KEY", key)
    monkeypatch.setenv("MILLPOND_QDRANT_URL", server.url)
    server.requests.clear()
    with pytest.raises(StorageError, match=message) as caught:
        Index.open(folder)
    assert "environment variable QDRANT_API_KEY" in str(caught.value)
    assert "wrong" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("grpc", [False, True])
def test_a_server_that_is_down_is_one_line_before_anything_is_encoded(
    tmp_path, write_with, encoder, documents, grpc
):
    url = f"http://127.0.0.1:{free_port()}"
    options = QdrantOptions(url=url, collection="docs", grpc=grpc, timeout_seconds=2)
    with pytest.raises(StorageError, match=f"No Qdrant server answers at {url} .*--url") as caught:
        write_with(options, encoder, documents, tmp_path / "i")
    assert "\n" not in str(caught.value)
    assert encoder.calls == 0
    assert not (tmp_path / "i" / "manifest.json").exists()


def test_a_server_that_went_down_is_one_line_on_search(folder, server, encoder):
    index = Index.open(folder)
    server.stop()
    with pytest.raises(StorageError, match="No Qdrant server answers"):
        index.search(encoder.encode_queries(["x"]), 1)


def test_a_refused_request_tells_what_the_server_says(server, options):
    server.failures.append(["PUT", "/points", 400, 1, {}])
    with Connection(options) as connection, pytest.raises(StorageError, match=r"not now \(400\)"):
        connection.run(lambda client: client.upsert("docs", points=[]))
    assert len(server.sent("PUT", "/points")) == 1


def test_a_fingerprint_survives_grpc():
    from qdrant_client import grpc
    from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

    from retrieval import Fingerprint

    sent = Fingerprint("m", {"a": 1, "b": 1.0, "c": None, "d": True, "e": "ü", "f": 10**12})
    metadata = RestToGrpc.convert_payload({"millpond": {"fingerprint": sent.to_json()}})
    message = grpc.CreateCollection(collection_name="x", metadata=metadata).SerializeToString()
    stored = GrpcToRest.convert_payload(grpc.CreateCollection.FromString(message).metadata)
    assert Fingerprint.from_json(stored["millpond"]["fingerprint"]).digest == sent.digest
