"""``millpond reindex``: the same vectors in another index."""

import pytest

from indexes import Index, read_manifest


def assert_refused(result, code, *words):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        (("--factory", "HNSW8"), ("faiss", "HNSW8")),
        (("--backend", "qdrant"), ("qdrant", "Flat")),
        (("--backend", "qdrant", "--factory", "HNSW8"), ("qdrant", "HNSW8")),
        (("--backend", "qdrant", "--store", "memory.toml"), ("qdrant", "Flat")),
        ((), ("faiss", "Flat")),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_another_index_finds_the_same_and_no_model_is_loaded(
    args, kind, elsewhere, millpond, index_folder, tmp_path, loaded, embedded, memory_store
):
    loaded.clear()
    embedded.clear()
    target = tmp_path / "other" if elsewhere else index_folder
    out = ("--out", target) if elsewhere else ()
    result = millpond("reindex", index_folder, *args, *out)
    assert result.exit_code == 0, result.stderr
    assert (loaded, embedded) == ([], [])
    first = result.stderr.splitlines()[0]
    assert first.startswith("Reindexed 3 documents in ")
    assert first.endswith(f": {target} ({kind[0]}, {kind[1]})")
    assert ("recall@10 1.00" in result.stderr) == (kind[1] != "Flat")
    manifest = read_manifest(target)
    assert (manifest.backend, manifest.factory) == kind
    shown = millpond("search", target, "mills grind corn", "-k", 1).stdout
    assert shown.split()[2] == "b"
    if elsewhere:
        assert read_manifest(index_folder).factory == "Flat"


def test_a_folder_that_holds_an_index_needs_overwrite(millpond, index_folder, corpus, tmp_path):
    other = tmp_path / "other"
    millpond("index", corpus, "--out", other, "--limit", 1)
    result = millpond("reindex", index_folder, "--out", other)
    assert_refused(result, 2, "already holds an index of 1 document by", "--overwrite")
    assert len(Index.open(other)) == 1
    assert millpond("reindex", index_folder, "--out", other, "--overwrite").exit_code == 0
    assert len(Index.open(other)) == 3


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--factory", "Flatt"), "Flatt"),
        (("--backend", "fais"), "Did you mean 'faiss'?"),
        (("--store", "grpc.toml"), "Type --backend qdrant"),
        (("--backend", "qdrant", "--store", "grpc.toml"), "only a server has a use for grpc"),
        (("--factory", "IVF100,Flat"), "IVF100,Flat"),
    ],
)
def test_what_cannot_be_built_is_refused_and_the_index_stays(
    args, words, millpond, index_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grpc.toml").write_text("grpc = true")
    before = (index_folder / "manifest.json").read_bytes()
    assert_refused(millpond("reindex", index_folder, *args), 2, words)
    assert (index_folder / "manifest.json").read_bytes() == before
    assert millpond("search", index_folder, "water").exit_code == 0


@pytest.fixture
def on_server(millpond, index_folder, tmp_path, qdrant_place):
    """The index on the fake server, in a folder of its own."""
    result = millpond("reindex", index_folder, "--out", tmp_path / "server", *qdrant_place)
    assert result.exit_code == 0, result.stderr
    return tmp_path / "server"


def test_an_index_goes_to_a_server_and_changes_there_in_place(
    millpond, on_server, qdrant_server, write_store
):
    (name,) = qdrant_server.collections
    assert qdrant_server.aliases == {"docs": name}
    result = millpond("reindex", on_server, "--factory", "HNSW16")
    assert result.exit_code == 0, result.stderr
    assert qdrant_server.aliases["docs"] != name
    store = ("--url", qdrant_server.url, "--store", write_store("shards = 2"))
    result = millpond("reindex", on_server, *store)
    assert result.exit_code == 0, result.stderr
    assert list(qdrant_server.aliases) == ["docs"]
    assert read_manifest(on_server).settings["shards"] == 2
    assert millpond("search", on_server, "mills grind corn", "-k", 1).stdout.split()[2] == "b"
    assert millpond("delete", on_server, "b").exit_code == 0
    assert "b" not in millpond("search", on_server, "mills grind corn").stdout.split()


def test_the_collection_of_an_index_is_not_given_to_another(
    millpond, on_server, qdrant_server, qdrant_place, write_store, tmp_path
):
    before = dict(qdrant_server.aliases)
    out = ("--out", tmp_path / "third")
    for args in (out, (*out, *qdrant_place, "--overwrite")):
        assert_refused(millpond("reindex", on_server, *args), 2, "DIR2 needs one of its own")
    collection = read_manifest(on_server).settings["collection"]
    for spelled in (f"{qdrant_server.url}/", qdrant_server.url.replace("http:", "HTTP:")):
        store = write_store(f'url = "{spelled}"', f'collection = "{collection}"')
        args = (*out, "--backend", "qdrant", "--store", store, "--overwrite")
        assert_refused(millpond("reindex", on_server, *args), 2, "DIR2 needs one of its own")
    assert qdrant_server.aliases == before
    assert not (tmp_path / "third").exists()
    assert millpond("reindex", on_server, *out, "--backend", "faiss").exit_code == 0
    assert millpond("search", on_server, "water").exit_code == 0


def test_a_collection_of_another_index_needs_overwrite(
    millpond, on_server, index_folder, qdrant_place
):
    assert_refused(
        millpond("reindex", index_folder, *qdrant_place), 2, "already has a collection 'docs'"
    )


def test_the_lexical_arm_is_dropped_and_added_without_embedding(millpond, index_folder, embedded):
    before = millpond("search", index_folder, "pond", "--mode", "lexical").stdout
    embedded.clear()
    assert millpond("reindex", index_folder, "--arms", "dense").exit_code == 0
    assert read_manifest(index_folder).arms == ("dense",)
    assert not list(index_folder.glob("lexical*"))
    assert_refused(
        millpond("search", index_folder, "pond", "--mode", "lexical"), 2, "--arms dense,lexical"
    )
    assert_refused(
        millpond("reindex", index_folder, "--language", "german"), 2, "the arms are dense"
    )
    result = millpond("reindex", index_folder, "--arms", "dense, lexical", "--language", "english")
    assert result.exit_code == 0, result.stderr
    assert "Words are indexed as english" in result.stderr
    assert millpond("search", index_folder, "pond", "--mode", "lexical").stdout == before != ""
    assert embedded == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--arms", "lexical"), ("every index has vectors", "dense,lexical")),
        (("--arms", "dense,sparse"), ("Unknown arm 'sparse'", "Accepted: dense, lexical")),
        (("--language", "germn"), ("Did you mean 'german'?",)),
    ],
)
def test_arms_and_languages_that_do_not_exist_are_refused(args, words, millpond, index_folder):
    assert_refused(millpond("reindex", index_folder, *args), 2, *words)
