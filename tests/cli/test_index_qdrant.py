"""``millpond index --backend qdrant``: what is typed, what reaches the server, what is refused."""

import os
import pty
import subprocess
import sys
import tomllib
from dataclasses import fields

import pytest

from cli.store import EXAMPLE, QdrantFlags, read_qdrant_options
from indexes import Index, read_manifest
from indexes.backends.qdrant import QdrantOptions
from indexes.backends.qdrant.options import QUANTIZATIONS

KEY = "s3cret-key"


def assert_refused(result, code, *words):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


def run_process(*args, **options):
    return subprocess.Popen([sys.executable, "-m", "cli", *map(str, args)], **options)


@pytest.mark.parametrize(
    ("args", "settings"),
    [
        ((), {"mode": "embedded", "exact": True}),
        (("--factory", "HNSW8,ef40"), {"mode": "embedded", "m": 8, "ef_construct": 40}),
        (("--store", "memory.toml"), {"mode": "memory", "exact": True}),
    ],
)
def test_an_index_without_a_server_is_searched(
    args, settings, millpond, corpus, tmp_path, memory_store
):
    folder = tmp_path / "index"
    result = millpond("index", corpus, "--out", folder, "--backend", "qdrant", *args)
    assert result.exit_code == 0, result.stderr
    assert settings.items() <= read_manifest(folder).settings.items()
    assert "b" in millpond("search", folder, "mills grind corn", "-k", 1).stdout.split()


def test_an_index_on_a_server_is_made_with_every_setting_and_searched(
    millpond, corpus, tmp_path, qdrant_server, write_store
):
    store = write_store(
        'collection = "docs"',
        "shards = 3",
        "replicas = 2",
        "parallel = 2",
        'quantization = "binary"',
        "vectors_on_disk = true",
        "payload_on_disk = true",
        "graph_on_disk = true",
        "timeout_seconds = 9",
    )
    folder = tmp_path / "index"
    args = ("--backend", "qdrant", "--url", qdrant_server.url, "--store", store)
    result = millpond("index", corpus, "--out", folder, *args, "--factory", "HNSW32")
    assert result.exit_code == 0, result.stderr
    [(name, collection)] = qdrant_server.collections.items()
    body = {key: value for key, value in collection["body"].items() if key != "metadata"}
    assert body == {
        "vectors": {"size": 32, "distance": "Cosine", "on_disk": True},
        "hnsw_config": {"m": 32, "ef_construct": 100, "on_disk": True},
        "quantization_config": {"binary": {"always_ram": True}},
        "shard_number": 3,
        "replication_factor": 2,
        "on_disk_payload": True,
    }
    assert qdrant_server.aliases == {"docs": name}
    assert len(collection["points"]) == 3
    shown = millpond("search", folder, "mills grind corn", "-k", 1)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.split()[2] == "b"


def test_a_file_expresses_all_that_the_library_does(monkeypatch, write_store):
    monkeypatch.setattr("getpass.getpass", lambda prompt: KEY)
    store = write_store(
        'collection = "docs"',
        "grpc = true",
        "parallel = 2",
        "shards = 3",
        "replicas = 4",
        'quantization = "int8"',
        "vectors_on_disk = true",
        "payload_on_disk = true",
        "graph_on_disk = true",
        'text_field = "text"',
        'metadata_field = "about"',
        "store_text = false",
        "timeout_seconds = 5",
        "green_seconds = 6",
    )
    read = read_qdrant_options("qdrant", "HNSW", QdrantFlags("https://host", store, True), "index")
    assert read == QdrantOptions(
        url="https://host",
        collection="docs",
        api_key=KEY,
        grpc=True,
        parallel=2,
        shards=3,
        replicas=4,
        quantization="int8",
        vectors_on_disk=True,
        payload_on_disk=True,
        graph_on_disk=True,
        text_field="text",
        metadata_field="about",
        store_text=False,
        timeout_seconds=5,
        green_seconds=6,
    )
    unchanged = [f.name for f in fields(QdrantOptions) if getattr(read, f.name) == f.default]
    # Instead of a server; typed as --overwrite; of a manifest.
    assert unchanged == ["memory", "overwrite", "received"]


def test_the_collection_is_called_as_the_folder_where_no_file_names_it(
    millpond, corpus, tmp_path, qdrant_server
):
    url = ("--backend", "qdrant", "--url", qdrant_server.url)
    result = millpond("index", corpus, "--out", tmp_path / "my-index", *url)
    assert result.exit_code == 0, result.stderr
    assert f"The collection 'my-index' at {qdrant_server.url} holds the vectors" in result.stderr
    assert list(qdrant_server.aliases) == ["my-index"]
    refused = millpond("index", corpus, "--out", tmp_path / "my index", *url)
    assert_refused(refused, 2, "The collection is 'my index'", "--store")


def test_the_example_is_read_and_names_every_setting_and_default(millpond, write_store):
    shown = millpond("index", "--store-example")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert max(len(line) for line in shown.stdout.splitlines()) <= 88
    flags = QdrantFlags(None, write_store(*shown.stdout.splitlines()), False)
    url = {"url": "http://localhost:6333", "collection": "docs"}
    assert read_qdrant_options("qdrant", "Flat", flags, "index") == QdrantOptions(**url)
    lines = [line.removeprefix("# ").split("  # ")[0] for line in EXAMPLE.splitlines()]
    named = tomllib.loads("\n".join(line for line in lines if " = " in line))
    expected = {f.name for f in fields(QdrantOptions)} - {"api_key", "overwrite", "received"}
    assert named.keys() == expected
    decided = {"url", "collection", "shards", "replicas"}  # shown with a value, for lack of one
    for name in expected - decided:
        assert named[name] == getattr(QdrantOptions(), name)
    assert all(name in EXAMPLE for name in QUANTIZATIONS)


def test_help_has_a_panel_within_80_columns(millpond):
    lines = millpond("index", "--help").stdout.splitlines()
    panel = lines.index("Qdrant, with --backend qdrant:")
    examples = [line for line in lines if line.startswith("    millpond ")]
    assert max(len(line) for line in lines if line not in examples) <= 80
    assert [line.split()[0] for line in lines[panel + 1 :] if line.startswith("  -")] == [
        "--url",
        "--store",
        "--ask-key",
        "--store-example",
    ]


SERVER = "--backend qdrant --url http://127.0.0.1:1 "
DOCS = 'collection = "docs"'


@pytest.mark.parametrize(
    ("typed", "store", "words"),
    [
        ("--url http://h", "shards = 2", "--url and --store, and the backend is 'faiss'"),
        ("", "memory = true", "--store, and the backend is 'faiss'"),
        ("--backend faiss --ask-key", None, "Type --backend qdrant, or leave that out"),
        ("--backend qdrant", "grpc = true", "a server has a use for grpc. Type --url"),
        ("--backend qdrant", DOCS + "\nreplicas = 2", "use for collection, replicas. Type --url"),
        ("--backend qdrant", 'quantization = "none"', "a server has a use for quantization"),
        ("--backend qdrant --ask-key", None, "a server has a use for --ask-key"),
        ("--backend qdrant", "memory = true\nparallel = 2\ngrpc = true", "use for grpc, parallel"),
        ("--backend qdrant --url http://h", "memory = true", "Leave one or the other out"),
        ("--backend qdrant --url http://h", 'collection = ""', "The collection is ''"),
        ("--backend qdrant --url=", DOCS, "--url is empty"),
        ("--backend qdrant --url :memory:", None, "For an index in memory: memory = true"),
        ("--backend qdrant --url host:6333", DOCS, "starts with http://"),
        ("--backend qdrant --url http://h", 'collection = "a/b"', "'a/b'"),
        ("--backend qdrant --url http://h", 'url = "http://g"', "--url and the url in store.toml"),
        (SERVER, DOCS + "\ngraph_on_disk = true", "--factory Flat has none"),
        (SERVER, 'quantization = "int8"', "--factory Flat compares the original vectors"),
        (SERVER, "parallel = 0", "store.toml: parallel is 0"),
        (SERVER, 'parallel = "2"', "store.toml: parallel is a string ('2')"),
        (SERVER, 'quantization = "int4"', "int4"),
        (SERVER, "shard = 2", "store.toml: Unknown setting 'shard'. Did you mean 'shards'?"),
        (SERVER, f'api_key = "{KEY}"', "in the environment variable QDRANT_API_KEY"),
        (SERVER, "overwrite = true", "Unknown setting 'overwrite'"),
        (SERVER, "shards 2", "store.toml: this is not TOML"),
        (SERVER + "--store other.toml", None, "index --store-example > other.toml"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(
    typed, store, words, millpond, tmp_path, loaded, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if store is not None:
        (tmp_path / "store.toml").write_text(store)
        typed += " --store store.toml"
    before = list(tmp_path.iterdir())
    nowhere = tmp_path / "nowhere.jsonl"  # a run that looked for it would say so instead
    result = millpond("index", nowhere, "--out", tmp_path / "index", *typed.split())
    assert_refused(result, 2, words)
    assert KEY not in result.output
    assert loaded == []
    assert list(tmp_path.iterdir()) == before


def test_a_key_in_the_url_is_refused_and_not_repeated(millpond, corpus, tmp_path):
    url = f"http://me:{KEY}@host"
    (tmp_path / "store.toml").write_text(f'url = "{url}"')
    for place in (("--url", url), ("--store", tmp_path / "store.toml")):
        args = ("--backend", "qdrant", *place)
        result = millpond("index", corpus, "--out", tmp_path / "index", *args)
        assert_refused(result, 2, "QDRANT_API_KEY")
        assert KEY not in result.output


def test_a_type_that_qdrant_does_not_make_is_refused_before_a_model_is_loaded(
    millpond, corpus, tmp_path, loaded
):
    args = ("--backend", "qdrant", "--factory", "IVF4,Flat")
    result = millpond("index", corpus, "--out", tmp_path / "index", *args)
    assert_refused(result, 2, "Expected: Flat (exact), HNSW")
    assert loaded == []


def test_a_server_that_is_down_shows_before_a_model_is_loaded(millpond, corpus, tmp_path, loaded):
    result = millpond("index", corpus, "--out", tmp_path / "index", *SERVER.split())
    assert_refused(result, 1, "No Qdrant server answers at http://127.0.0.1:1")
    assert loaded == []
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ("wants an API key (401)", "variable QDRANT_API_KEY")),
        (
            {"QDRANT_API_KEY": "old-key"},
            ("refuses this API key (403); it comes from QDRANT_API_KEY", "variable QDRANT_API_KEY"),
        ),
        (
            # Ours goes first, so a right key in the other one would not help.
            {"MILLPOND_QDRANT_API_KEY": "old-key", "QDRANT_API_KEY": KEY},
            ("it comes from MILLPOND_QDRANT_API_KEY", "variable MILLPOND_QDRANT_API_KEY,"),
        ),
    ],
)
def test_a_refused_key_names_the_variable_when_indexing_and_when_searching(
    environment, words, millpond, corpus, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    folder = tmp_path / "index"
    assert millpond("index", corpus, "--out", folder, *qdrant_place).exit_code == 0
    qdrant_server.key = KEY
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MILLPOND_QDRANT_URL", qdrant_server.url)
    searched = millpond("search", folder, "water")
    assert_refused(searched, 1, *words)
    indexed = millpond("index", corpus, "--out", tmp_path / "other", *qdrant_place)
    assert_refused(indexed, 1, *words)
    assert "old-key" not in searched.output + indexed.output


def test_the_key_of_the_environment_is_sent_by_index_and_search(
    millpond, corpus, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    qdrant_server.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    assert millpond("index", corpus, "--out", tmp_path / "index", *qdrant_place).exit_code == 0
    named = ("--url", qdrant_server.url)
    assert millpond("search", tmp_path / "index", "water", *named).exit_code == 0
    assert {request.headers["api-key"] for request in qdrant_server.requests} == {KEY}


def test_a_key_for_another_server_is_not_sent_to_the_one_that_is_typed(
    millpond, corpus, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    assert millpond("index", corpus, "--out", tmp_path / "index", *qdrant_place).exit_code == 0
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    monkeypatch.setenv("MILLPOND_QDRANT_URL", "https://mine.example:6333")
    found = millpond("search", tmp_path / "index", "water", "--url", qdrant_server.url)
    assert found.exit_code == 0
    assert "Warning: The key in QDRANT_API_KEY belongs to https://mine.example" in found.stderr
    assert not any("api-key" in request.headers for request in qdrant_server.requests)


def test_an_index_on_a_server_is_built_again_with_its_own_settings(
    millpond, corpus, tmp_path, qdrant_server
):
    folder, store = tmp_path / "index", tmp_path / "qdrant.toml"
    store.write_text('collection = "docs"\nstore_text = false\n')
    named = ("--url", qdrant_server.url)
    typed = ("--backend", "qdrant", *named, "--store", store)
    assert millpond("index", corpus, "--out", folder, *typed).exit_code == 0
    built = millpond("reindex", folder, *named, "--factory", "HNSW")
    assert built.exit_code == 0, built.stderr
    settings = read_manifest(folder).settings
    assert (settings["store_text"], settings["collection"]) == (False, "docs")
    moved = millpond("reindex", folder, *named, "--backend", "faiss")
    assert moved.exit_code == 0, moved.stderr
    assert read_manifest(folder).backend == "faiss"


@pytest.mark.parametrize("key", ["two words", KEY + "\n", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused(
    key, millpond, corpus, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    monkeypatch.setenv("QDRANT_API_KEY", key)
    result = millpond("index", corpus, "--out", tmp_path / "index", *qdrant_place)
    assert_refused(result, 2, "environment variable QDRANT_API_KEY contains a space")
    assert key.strip() not in result.output
    assert qdrant_server.requests == []


def test_a_key_that_is_asked_for_goes_before_the_environment_and_is_nowhere_kept(
    millpond, corpus, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    qdrant_server.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", "old-key")
    prompts = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or KEY)
    result = millpond("index", corpus, "--out", tmp_path / "index", *qdrant_place, "--ask-key")
    assert result.exit_code == 0, result.stderr
    assert prompts == [f"API key of {qdrant_server.url}: "]
    assert KEY not in result.output
    for path in (tmp_path / "index").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("ending", [KeyboardInterrupt, EOFError])
def test_a_prompt_that_is_left_ends_the_run(
    ending, millpond, corpus, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    def leave(prompt):
        raise ending

    monkeypatch.setattr("getpass.getpass", leave)
    result = millpond("index", corpus, "--out", tmp_path / "index", *qdrant_place, "--ask-key")
    assert result.exit_code == (130 if ending is KeyboardInterrupt else 2)
    assert qdrant_server.requests == []


def test_a_key_that_is_typed_at_a_terminal_is_not_shown(
    corpus, tmp_path, qdrant_server, qdrant_place
):
    qdrant_server.key = "another"
    ours, terminal = pty.openpty()
    args = ("index", corpus, "--out", tmp_path / "index", *qdrant_place, "--ask-key")
    ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with run_process(*args, **ends, start_new_session=True) as process:
        os.close(terminal)
        shown = b""
        while b"API key of" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, KEY.encode() + b"\n")
        while chunk := read_terminal(ours):
            shown += chunk
        process.wait()
    os.close(ours)
    assert process.returncode == 1
    assert b"refuses this API key" in shown
    assert KEY.encode() not in shown
    assert {request.headers["api-key"] for request in qdrant_server.requests} == {KEY}


def read_terminal(descriptor):
    """Return what was printed, b"" once the other end is closed (Linux says EIO)."""
    try:
        return os.read(descriptor, 1024)
    except OSError:
        return b""


def test_without_a_terminal_no_key_is_asked_for(corpus, tmp_path, qdrant_place):
    args = ("index", corpus, "--out", tmp_path / "index", *qdrant_place, "--ask-key")
    ends = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with run_process(*args, **ends, start_new_session=True) as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert said.startswith("Error: --ask-key needs a terminal")
    assert len(said.splitlines()) == 1


def test_a_taken_name_needs_overwrite_which_replaces_it(
    millpond, corpus, write_jsonl, tmp_path, qdrant_server, qdrant_place
):
    first, second = tmp_path / "first", tmp_path / "second"
    assert millpond("index", corpus, "--out", first, *qdrant_place).exit_code == 0
    result = millpond("index", corpus, "--out", second, *qdrant_place)
    assert_refused(result, 2, "already has a collection 'docs' of 3 documents", "--overwrite")
    [before] = qdrant_server.collections
    other = write_jsonl("other.jsonl", {"_id": "z", "text": "new"})
    result = millpond("index", other, "--out", first, *qdrant_place, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert qdrant_server.aliases["docs"] != before
    assert len(Index.open(first)) == 1


def test_a_collection_of_somebody_else_is_left_alone(
    millpond, corpus, tmp_path, qdrant_server, qdrant_place
):
    foreign = {"body": {"vectors": {"size": 4, "distance": "Dot"}}, "points": {}}
    qdrant_server.collections["docs"] = foreign
    args = (*qdrant_place, "--overwrite")
    result = millpond("index", corpus, "--out", tmp_path / "index", *args)
    assert_refused(result, 2, "that millpond did not make", "--store")
    assert qdrant_server.collections == {"docs": foreign}


def test_after_a_failed_upload_the_same_command_embeds_nothing_again(
    millpond, corpus, tmp_path, qdrant_server, qdrant_place
):
    args = ("index", corpus, "--out", tmp_path / "index", *qdrant_place)
    qdrant_server.failures.append(["PUT", "/points", 400, 1, {}])
    assert_refused(millpond(*args), 1, "cannot do this: not now (400)")
    assert qdrant_server.collections == {}
    result = millpond(*args)
    assert result.exit_code == 0, result.stderr
    assert "Continuing: 3 documents were embedded before." in result.stderr
    assert "(0.0 a second)" in result.stderr  # the rate is that of this run, which embedded none
    assert len(Index.open(tmp_path / "index")) == 3


@pytest.mark.parametrize("command", ["add", "update", "delete", "check", "search"])
def test_a_stored_index_asks_for_the_key_of_its_server(
    command, millpond, corpus, write_jsonl, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    qdrant_server.key = KEY
    monkeypatch.setenv("MILLPOND_QDRANT_API_KEY", KEY)
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index, *qdrant_place).exit_code == 0
    monkeypatch.setenv("MILLPOND_QDRANT_API_KEY", "old-key")
    qdrant_server.requests.clear()
    prompts = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or KEY)
    more = write_jsonl("more.jsonl", {"_id": "z", "text": "new"})
    given = {"add": [more], "update": [more], "delete": ["--ignore-missing", "a"], "check": []}
    given["search"] = ["water"]
    result = millpond(command, index, *given[command], "--ask-key")
    assert result.exit_code == 0, result.stderr
    assert prompts == [f"API key of {qdrant_server.url}: "]
    assert {request.headers["api-key"] for request in qdrant_server.requests} == {KEY}


@pytest.mark.parametrize("command", ["add", "update", "delete", "check", "search"])
def test_a_stored_index_uses_a_server_elsewhere_once_it_is_typed(
    command, millpond, corpus, write_jsonl, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index, *qdrant_place).exit_code == 0
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    # As if 127.0.0.1 were another machine, and TLS were not needed there.
    module = "indexes.backends.qdrant.connection."
    monkeypatch.setattr(module + "is_loopback", lambda url: False)
    monkeypatch.setattr(module + "_refuse_clear_text", lambda url, variable: None)
    qdrant_server.requests.clear()
    more = write_jsonl("more.jsonl", {"_id": "z", "text": "new"})
    given = {"add": [more], "update": [more], "delete": ["a"], "check": [], "search": ["water"]}
    args = (command, index, *given[command])
    assert_refused(millpond(*args), 2, f"type --url {qdrant_server.url} with")
    other = millpond(*args, "--url", "https://other.example:6333")
    assert_refused(other, 2, f"on the Qdrant server {qdrant_server.url}, not https://other")
    assert qdrant_server.requests == []
    result = millpond(*args, "--url", qdrant_server.url)
    assert result.exit_code == 0, result.stderr
    assert {request.headers["api-key"] for request in qdrant_server.requests} == {KEY}


@pytest.mark.parametrize("command", ["add", "delete", "check"])
def test_an_index_without_a_server_asks_for_no_key(command, millpond, corpus, tmp_path):
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index).exit_code == 0
    given = {"add": [corpus], "delete": ["a"], "check": []}
    result = millpond(command, index, *given[command], "--ask-key")
    assert_refused(result, 2, "Only a Qdrant server has a use for --ask-key", "Leave it out")


def test_an_addition_that_failed_says_where_it_goes_on(
    millpond, corpus, write_jsonl, tmp_path, qdrant_server, qdrant_place
):
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index, *qdrant_place).exit_code == 0
    more = write_jsonl("more.jsonl", {"_id": "y", "text": "newer"}, {"_id": "z", "text": "new"})
    qdrant_server.failures.append(["PUT", "/points", 400, 1, {}])
    assert_refused(millpond("add", index, more), 1, "cannot do this: not now (400)")
    result = millpond("add", index, more)
    assert result.exit_code == 0, result.stderr
    assert "Continuing: 2 documents were stored before." in result.stderr
    assert "Added 2" in result.stderr
