"""Fields, filters and changes as a Qdrant server is told of them."""

from indexes import Index, IndexConfig
from indexes.backends.qdrant.points import point_id
from retrieval import Document


def one_collection(server):
    [name] = server.collections
    return name, server.collections[name]


def test_fields_are_sent_with_the_points_and_indexed_by_type(
    tmp_path, write_with, server, options, encoder
):
    documents = [
        Document("a", "x", metadata={"year": 2020, "lang": "en", "day": "2021-02-03", "ok": True}),
        Document("b", "y", metadata={"year": 2021, "score": 0.5}),
    ]
    write_with(options, encoder, documents, tmp_path / "i")
    _, collection = one_collection(server)
    assert collection["indexes"] == {
        "metadata.year": "integer",
        "metadata.lang": "keyword",
        'fields."day"': "datetime",
        'fields."ok"': "integer",
        "metadata.score": "float",
        'fields."score%high"': "integer",
        'fields."score%low"': "integer",
        "metadata.day": "datetime",
        "metadata.ok": "bool",
    }
    assert collection["points"][point_id("a")]["payload"] == {
        "doc_id": "a",
        "row": 0,
        "page_content": "x",
        "metadata": {"year": 2020, "lang": "en", "day": "2021-02-03", "ok": True},
        "fields": {"day": "2021-02-03T00:00:00.000000Z", "ok": 1},
    }
    indexed = [r.path.endswith("/index") for r in server.requests if r.method == "PUT"]
    assert indexed.index(True) < len(indexed) - 1  # before the points


def test_a_filter_is_sent_with_the_query(tmp_path, write_with, server, options, encoder):
    documents = [Document(str(n), str(n), metadata={"year": n}) for n in range(5)]
    write_with(options, encoder, documents, tmp_path / "i")
    Index.open(tmp_path / "i").search(encoder.encode_queries(["1"]), 2, where="year >= 3")
    [search] = server.sent("POST", "/query/batch")[-1].body["searches"]
    assert search["filter"] == {"must": [{"key": "metadata.year", "range": {"gte": 3.0}}]}
    assert search["limit"] == 2  # no more rows match


def test_a_change_makes_a_new_collection_and_moves_the_alias(
    tmp_path, write_with, server, options, encoder, documents
):
    write_with(options, encoder, documents, tmp_path / "i")
    first, _ = one_collection(server)
    Index.open(tmp_path / "i", encoder).add([Document("new", "new")])
    Index.open(tmp_path / "i").delete(["d0", "d1"], IndexConfig(compact_share=1))
    current = server.aliases["docs"]
    assert current != first
    points = server.collections[current]["points"]
    assert len(points) == 24
    assert point_id("new") in points
    assert point_id("d0") not in points
    assert server.collections[current]["body"]["metadata"]["millpond"]["documents"] == 24
    assert Index.open(tmp_path / "i").check().documents == 24
    hits = Index.open(tmp_path / "i").search(encoder.encode_queries(["new"]), 1)[0]
    assert hits[0].doc_id == "new"


def test_a_server_index_is_rebuilt_with_its_own_options(
    tmp_path, write_with, server, options, encoder, documents
):
    write_with(options, encoder, documents, tmp_path / "i")
    Index.open(tmp_path / "i").reindex(factory="HNSW24")
    body = server.collections[server.aliases["docs"]]["body"]
    assert body["hnsw_config"]["m"] == 24
    manifest = Index.open(tmp_path / "i").reindex(out=tmp_path / "local", backend="faiss").manifest
    assert (manifest.backend, manifest.factory) == ("faiss", "Flat")
    assert "mode" not in manifest.settings
