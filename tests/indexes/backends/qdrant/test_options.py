import sys

import pytest

from indexes import Index, IndexConfig, read_manifest
from indexes.backends.qdrant import QdrantOptions, configured_backend
from indexes.backends.qdrant.options import Factory
from indexes.backends.qdrant.points import point_id
from retrieval.errors import MissingDependencyError, UsageError

SERVER = {"url": "http://localhost:6333", "collection": "docs"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Flat", Factory(exact=True)),
        ("HNSW", Factory(exact=False, m=16, ef_construct=100)),
        ("HNSW32", Factory(exact=False, m=32, ef_construct=100)),
        ("HNSW,ef64", Factory(exact=False, m=16, ef_construct=64)),
        ("HNSW48,ef200", Factory(exact=False, m=48, ef_construct=200)),
    ],
)
def test_a_factory_string_is_read(text, expected):
    assert Factory.parse(text, 64) == expected


@pytest.mark.parametrize(
    "text",
    ["", "flat", "Flat,", "HNSW1", "HNSW0", "HNSW257", "HNSW32,200", "HNSW,ef3", "IVF4,Flat"],
)
def test_another_factory_string_is_refused_before_anything_is_encoded(
    tmp_path, encoder, documents, text
):
    with pytest.raises(UsageError, match="Expected: Flat .exact., HNSW, HNSW32") as caught:
        Index.create(
            tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant", factory=text)
        )
    assert repr(text) in str(caught.value)
    assert encoder.calls == 0
    assert list(tmp_path.iterdir()) == []


def test_vectors_that_are_too_long_for_qdrant_are_refused():
    with pytest.raises(UsageError, match="1 to 65536; these have 65537"):
        Factory.parse("Flat", 65_537)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "localhost:6333"}, "starts with http"),
        ({"url": "http://me:secret@host"}, "QDRANT_API_KEY"),
        ({"url": "https://host?api_key=secret"}, "QDRANT_API_KEY"),
        ({"url": "http://host:port"}, "cannot be read"),
        ({"collection": ""}, "Name it in the --store file"),
        ({"collection": "a/b"}, "'a/b'"),
        ({"parallel": 0}, "parallel is 0"),
        ({"shards": 0}, "shards is 0"),
        ({"quantization": "int4"}, "none, int8, binary"),
    ],
)
def test_an_option_that_is_never_accepted_is_refused(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        QdrantOptions(**(SERVER | changes))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("memory", [False, True])
def test_an_option_of_a_server_is_refused_without_one(memory):
    with pytest.raises(UsageError, match="only a server has a use for shards.*--url"):
        QdrantOptions(memory=memory, shards=2)


def test_the_key_is_neither_shown_nor_kept():
    options = QdrantOptions(**SERVER, api_key="secret")
    assert "secret" not in repr(options)
    assert "secret" not in str(options.settings())


def test_a_point_id_depends_on_the_document_id_only():
    # uuid.uuid5(uuid.NAMESPACE_OID, "d1"), as the documentation says.
    assert point_id("d1") == point_id("d1") != point_id("d2")
    assert point_id("") == "0a68eb57-c88a-5f34-9e9d-27f85e68af4f"


@pytest.mark.parametrize(
    ("options", "module", "package"),
    [
        (QdrantOptions(), "qdrant_edge", "qdrant-edge-py"),
        (QdrantOptions(memory=True), "qdrant_client", "qdrant-client"),
        (QdrantOptions(**SERVER), "qdrant_client", "qdrant-client"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    monkeypatch, options, module, package
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{package},.*millpond\[qdrant\]"):
        configured_backend(options).check(16, "Flat")


def test_the_manifest_tells_the_place_and_the_type(tmp_path, encoder, documents):
    Index.create(
        tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant", factory="HNSW32")
    )
    manifest = read_manifest(tmp_path / "i")
    assert manifest.settings == {
        "mode": "embedded",
        "exact": False,
        "m": 32,
        "ef_construct": 100,
        "recall@10": 1.0,
        "recall_queries": 25,
        "hnsw_ef": 128,
    }
    assert QdrantOptions.from_manifest(manifest) == QdrantOptions()
    libraries = {"python", "numpy", "pyarrow", "qdrant-edge-py", "tantivy", "PyStemmer"}
    assert set(manifest.libraries) == libraries
