"""What other programs find in a collection: text and metadata, as langchain-qdrant reads them."""

import json
import sys

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.backends.qdrant import QdrantOptions
from indexes.backends.qdrant.points import ClientFields
from retrieval import Document
from retrieval.errors import IndexCorruptError, UsageError
from retrieval.filters import infer_schema
from tests.indexes import fakes
from tests.indexes.backends.qdrant.test_server import one_collection, with_changes

FIELDS = ClientFields("page_content", "metadata")


def search_like_langchain(client, collection, vector, k):
    """Do what ``QdrantVectorStore.similarity_search_by_vector`` of langchain-qdrant 1.1.0 does."""
    config = client.get_collection(collection).config.params.vectors
    assert not isinstance(config, dict)  # one vector without a name
    assert (config.size, config.distance.value) == (len(vector), "Cosine")
    found = client.query_points(
        collection_name=collection,
        query=vector,
        using="",
        query_filter=None,
        search_params=None,
        limit=k,
        offset=0,
        with_payload=True,
        with_vectors=False,
        score_threshold=None,
        consistency=None,
    ).points
    return [
        (point.payload.get("page_content", ""), point.payload.get("metadata") or {})
        for point in found
    ]


def test_a_program_that_reads_as_langchain_does_finds_texts_and_metadata(
    tmp_path, write_with, server, options, encoder
):
    from qdrant_client import QdrantClient

    documents = [
        Document("a", "water flows", "Rivers", {"year": 1851, "tags": '["x", "y"]', "day": None}),
        Document("b", "mills grind", "", {"day": "2021-02-03", "ok": True, "share": 0.1}),
    ]
    write_with(options, encoder, documents, tmp_path / "i")
    [vector] = encoder.encode_queries([documents[0].content]).tolist()
    client = QdrantClient(url=server.url, check_compatibility=False)
    # The alias: whoever reads it gets the next version of the index as well.
    assert search_like_langchain(client, "docs", vector, 2) == [
        ("water flows", {"title": "Rivers", "year": 1851, "tags": ["x", "y"]}),
        ("mills grind", {"day": "2021-02-03", "ok": True, "share": 0.1}),
    ]
    client.close()


def test_names_are_those_of_the_options_and_texts_can_be_left_out(
    tmp_path, write_with, server, options, encoder
):
    documents = [Document("a", "water", "Rivers", {"year": 1851})]
    chosen = with_changes(options, text_field="text", metadata_field="about")
    write_with(chosen, encoder, documents, tmp_path / "i")
    [point] = one_collection(server)[1]["points"].values()
    about = {"year": 1851, "title": "Rivers"}
    assert point["payload"] == {"doc_id": "a", "row": 0, "text": "water", "about": about}
    Index.open(tmp_path / "i").search(encoder.encode_queries(["x"]), 1, where="year > 0")
    [search] = server.sent("POST", "/query/batch")[-1].body["searches"]
    assert search["filter"] == {"must": [{"key": "about.year", "range": {"gte": 1.0}}]}
    with_overwrite = with_changes(options, store_text=False, overwrite=True)
    write_with(with_overwrite, encoder, documents, tmp_path / "i", overwrite=True)
    [point] = server.collections[server.aliases["docs"]]["points"].values()
    metadata = {"year": 1851, "title": "Rivers"}
    assert point["payload"] == {"doc_id": "a", "row": 0, "metadata": metadata}
    assert Index.open(tmp_path / "i").search(encoder.encode_queries(["x"]), 1)[0][0].text == "water"


def test_values_of_every_type_are_as_a_program_expects_them():
    rows = [
        {
            "year": 2020,
            "score": 0.5,
            "lang": "en",
            "draft": True,
            "day": "2020-12-31",
            "days": '["2020-12-31", null]',
            "flags": "[true]",
            "shares": "[1, 0.5]",
            "none": "[]",
            'quo"te': 7,
            "mixed": 1,
            "a b": 2,
        },
        {"mixed": "x", "score": float("nan"), "year": None, "endless": float("inf"), "wide": 2**64},
    ]
    schema = infer_schema(rows)
    payload = FIELDS.make_payload(Document("a", "text", metadata=rows[0]), schema)
    assert payload == {
        "page_content": "text",
        "metadata": {
            "year": 2020,
            "score": 0.5,
            "lang": "en",
            "draft": True,
            "day": "2020-12-31",
            "days": ["2020-12-31"],
            "flags": [True],
            "shares": [1.0, 0.5],
            'quo"te': 7,
            "mixed": 1,
            "a b": 2,
        },
        "fields": {
            "score%high": 0x3FE00000,  # 0.5 is the float64 3FE0000000000000
            "score%low": 0,
            "draft": 1,
            "day": "2020-12-31T00:00:00.000000Z",
            "flags": [1],
            "shares%text": ["1.0", "0.5"],
            "quo%22te": 7,
        },
    }
    second = FIELDS.make_payload(Document("b", "", metadata=rows[1]), schema)["metadata"]
    # Infinity is the largest float, as for filters; a number beyond 64 bits is text.
    assert second == {"mixed": "x", "endless": sys.float_info.max, "wide": "18446744073709551616"}
    assert FIELDS.list_indexes(schema) == {
        "metadata.year": "integer",
        "metadata.score": "float",
        'fields."score%high"': "integer",
        'fields."score%low"': "integer",
        "metadata.lang": "keyword",
        'fields."draft"': "integer",
        "metadata.draft": "bool",
        'fields."day"': "datetime",
        "metadata.day": "datetime",
        "metadata.days": "keyword",
        "metadata.none": "keyword",
        'fields."flags"': "integer",
        "metadata.flags": "bool",
        "metadata.shares": "float",
        'fields."shares%text"': "keyword",
        'fields."quo%22te"': "integer",
        'metadata."a b"': "integer",
        "metadata.endless": "float",
        'fields."endless%high"': "integer",
        'fields."endless%low"': "integer",
    }


def test_a_field_called_title_is_not_the_title_of_a_document():
    schema = infer_schema([{"title": "a field"}])
    for metadata, expected in [({"title": "a field"}, {"title": "a field"}), ({}, {})]:
        document = Document("a", "text", "The title", metadata)
        assert FIELDS.make_payload(document, schema)["metadata"] == expected
    plain = FIELDS.make_payload(Document("a", "text", "The title"), infer_schema([{}]))
    assert plain["metadata"] == {"title": "The title"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_field": "fields"}, "text_field is 'fields'; expected letters, digits"),
        ({"text_field": ""}, "text_field is ''"),
        ({"metadata_field": "a.b"}, "metadata_field is 'a.b'"),
        ({"metadata_field": "page_content"}, "are both 'page_content'; expected two names"),
    ],
)
def test_an_entry_that_cannot_hold_them_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        QdrantOptions(url="http://localhost:6333", collection="docs", **changes)


@pytest.mark.parametrize("length", [1.0, 0.5])
def test_order_and_scores_are_those_of_faiss_whatever_the_distance(
    tmp_path, write_with, server, options, length
):
    random = np.random.default_rng(3)
    vectors = random.standard_normal((80, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[20:60] = vectors[10]  # forty-one equal vectors, more than fit into one answer
    vectors[::2] *= length
    documents = [Document(f"{n:02d}", str(n)) for n in random.permutation(80)]
    encoder = fakes.TableEncoder(vectors)
    write_with(options, encoder, documents, tmp_path / "q")
    Index.create(tmp_path / "f", encoder, documents, IndexConfig())
    body = one_collection(server)[1]["body"]
    assert body["vectors"]["distance"] == ("Cosine" if length == 1 else "Dot")
    # Queries of any length: a cosine is not their product with the vectors.
    queries = np.concatenate([vectors[10:12], 100 * vectors[:3], 0 * vectors[:1]])
    for k in (1, 7, 41, 80):
        one, other = (
            [
                [(hit.doc_id, hit.score) for hit in hits]
                for hits in Index.open(tmp_path / name).search(queries, k)
            ]
            for name in "qf"
        )
        assert one == other


def test_an_index_with_the_payload_of_an_earlier_millpond_is_refused(
    tmp_path, write_with, options, encoder, documents
):
    write_with(options, encoder, documents, tmp_path / "i")
    path = tmp_path / "i" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["settings"]["metadata_field"], manifest["digest"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(IndexCorruptError, match="An earlier millpond made it.*--overwrite"):
        Index.open(tmp_path / "i")
