"""``millpond index --backend qdrant``: what is typed, what reaches the server, what is refused."""

import os
import pty
import subprocess
import sys
from dataclasses import fields

import pytest

from cli import qdrant_options as qdrant
from indexes import open_index, read_manifest
from indexes.backends.qdrant import QdrantOptions
from indexes.backends.qdrant.options import QUANTIZATIONS

KEY = "s3cret-key"


@pytest.fixture
def on_server(qdrant_server):
    """The options of an index on the fake server."""
    return ("--backend", "qdrant", "--url", qdrant_server.url, "--collection", "docs")


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
        (("--memory",), {"mode": "memory", "exact": True}),
    ],
)
def test_an_index_without_a_server_is_searched(args, settings, millpond, corpus, tmp_path):
    folder = tmp_path / "index"
    result = millpond("index", corpus, "--out", folder, "--backend", "qdrant", *args)
    assert result.exit_code == 0, result.stderr
    assert settings.items() <= read_manifest(folder).settings.items()
    assert "b" in millpond("search", folder, "mills grind corn", "-k", 1).stdout.split()


def test_an_index_on_a_server_is_made_with_every_option_and_searched(
    millpond, corpus, tmp_path, qdrant_server, on_server
):
    typed = "--factory HNSW32 --shards 3 --replicas 2 --parallel 2 --quantization binary "
    typed += "--vectors-on-disk --payload-on-disk --graph-on-disk --timeout-seconds 9"
    folder = tmp_path / "index"
    result = millpond("index", corpus, "--out", folder, *on_server, *typed.split())
    assert result.exit_code == 0, result.stderr
    [(name, collection)] = qdrant_server.collections.items()
    body = {key: value for key, value in collection["body"].items() if key != "metadata"}
    assert body == {
        "vectors": {"size": 32, "distance": "Dot", "on_disk": True},
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


def test_the_options_express_all_that_the_library_does(monkeypatch):
    made = []
    monkeypatch.setattr("indexes.backends.qdrant.configured_backend", made.append)
    monkeypatch.setattr("getpass.getpass", lambda prompt: KEY)
    flags = qdrant.QdrantFlags(
        url="https://host",
        memory=False,
        collection="docs",
        ask_key=True,
        grpc=True,
        parallel=2,
        shards=3,
        replicas=4,
        quantization=qdrant.Quantization.INT8,
        vectors_on_disk=True,
        payload_on_disk=True,
        graph_on_disk=True,
        timeout_seconds=5,
        green_seconds=6,
    )
    qdrant.choose_store("qdrant", "HNSW", True, flags)
    assert made == [
        QdrantOptions(
            url="https://host",
            collection="docs",
            api_key=KEY,
            overwrite=True,
            grpc=True,
            parallel=2,
            shard_number=3,
            replication_factor=4,
            quantization="int8",
            on_disk_vectors=True,
            on_disk_payload=True,
            on_disk_graph=True,
            timeout_seconds=5,
            green_seconds=6,
        )
    ]
    unchanged = [f.name for f in fields(QdrantOptions) if getattr(made[0], f.name) == f.default]
    assert unchanged == []


def test_help_has_a_panel_within_80_columns_and_tells_the_defaults(millpond):
    lines = millpond("index", "--help").stdout.splitlines()
    panel = lines.index("Qdrant, with --backend qdrant (all but --memory need --url):")
    examples = [line for line in lines if line.startswith("    millpond ")]
    assert max(len(line) for line in lines if line not in examples) <= 80
    assert [line.split()[0] for line in lines[panel + 1 :] if line.startswith("  -")] == [
        "--url",
        "--memory",
        "--collection",
        "--ask-key",
        "--grpc",
        "--parallel",
        "--shards",
        "--replicas",
        "--quantization",
        "--vectors-on-disk",
        "--payload-on-disk",
        "--graph-on-disk",
        "--timeout-seconds",
        "--green-seconds",
    ]
    shown = " ".join(" ".join(lines[panel:]).split())
    defaults = QdrantOptions()
    assert f"--parallel N Batches sent at the same time; else {defaults.parallel}." in shown
    assert f"--timeout-seconds N For one request; else {defaults.timeout_seconds}." in shown
    assert f"after the last batch; else {defaults.green_seconds}." in shown
    assert tuple(qdrant.Quantization) == QUANTIZATIONS
    assert all(name in shown for name in QUANTIZATIONS)


SERVER = "--backend qdrant --url http://127.0.0.1:1 --collection docs "


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("--url http://h --shards 2", "--url and --shards concern Qdrant, and the backend is"),
        ("--memory", "--memory concerns Qdrant, and the backend is 'faiss'"),
        ("--backend faiss --ask-key", "Type --backend qdrant, or leave it out"),
        ("--backend qdrant --grpc", "--grpc concerns a Qdrant server, and none was named"),
        ("--backend qdrant --collection docs --replicas 2", "--collection and --replicas concern"),
        ("--backend qdrant --quantization none", "--quantization concerns a Qdrant server"),
        ("--backend qdrant --memory --parallel 2 --grpc", "--grpc and --parallel concern a Qdrant"),
        ("--backend qdrant --memory --url http://h", "Leave one or the other out"),
        ("--backend qdrant --url http://h", "The collection is ''"),
        ("--backend qdrant --url= --collection docs", "--url is empty"),
        ("--backend qdrant --url :memory:", "For an index in memory: --memory"),
        ("--backend qdrant --url host:6333 --collection docs", "starts with http://"),
        ("--backend qdrant --url http://h --collection a/b", "'a/b'"),
        (SERVER + "--graph-on-disk", "--factory Flat has none"),
        (SERVER + "--quantization int8", "--factory Flat compares the original vectors"),
        (SERVER + "--parallel 0", "--parallel"),
        (SERVER + "--quantization int4", "int4"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(
    typed, words, millpond, tmp_path, loaded
):
    nowhere = tmp_path / "nowhere.jsonl"  # a run that looked for it would say so instead
    result = millpond("index", nowhere, "--out", tmp_path / "index", *typed.split())
    assert_refused(result, 2, words)
    assert loaded == []
    assert list(tmp_path.iterdir()) == []


def test_a_key_in_the_url_is_refused_and_not_repeated(millpond, corpus, tmp_path):
    args = ("--backend", "qdrant", "--collection", "docs", "--url", f"http://me:{KEY}@host")
    result = millpond("index", corpus, "--out", tmp_path / "index", *args)
    assert_refused(result, 2, "QDRANT_API_KEY")
    assert KEY not in result.output


def test_a_type_that_qdrant_does_not_make_is_refused_before_a_model_is_loaded(
    millpond, corpus, tmp_path, loaded
):
    args = ("--backend", "qdrant", "--factory", "IVF4,Flat")
    result = millpond("index", corpus, "--out", tmp_path / "index", *args)
    assert_refused(result, 2, "Accepted: Flat (exact), HNSW")
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
    environment, words, millpond, corpus, tmp_path, qdrant_server, on_server, monkeypatch
):
    folder = tmp_path / "index"
    assert millpond("index", corpus, "--out", folder, *on_server).exit_code == 0
    qdrant_server.key = KEY
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    searched = millpond("search", folder, "water")
    assert_refused(searched, 1, *words)
    indexed = millpond("index", corpus, "--out", tmp_path / "other", *on_server)
    assert_refused(indexed, 1, *words)
    assert "old-key" not in searched.output + indexed.output


def test_the_key_of_the_environment_is_sent_by_index_and_search(
    millpond, corpus, tmp_path, qdrant_server, on_server, monkeypatch
):
    qdrant_server.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    assert millpond("index", corpus, "--out", tmp_path / "index", *on_server).exit_code == 0
    assert millpond("search", tmp_path / "index", "water").exit_code == 0
    assert {request.headers["api-key"] for request in qdrant_server.requests} == {KEY}


@pytest.mark.parametrize("key", ["two words", KEY + "\n", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused(
    key, millpond, corpus, tmp_path, qdrant_server, on_server, monkeypatch
):
    monkeypatch.setenv("QDRANT_API_KEY", key)
    result = millpond("index", corpus, "--out", tmp_path / "index", *on_server)
    assert_refused(result, 2, "environment variable QDRANT_API_KEY holds a blank")
    assert key.strip() not in result.output
    assert qdrant_server.requests == []


def test_a_key_that_is_asked_for_goes_before_the_environment_and_is_nowhere_kept(
    millpond, corpus, tmp_path, qdrant_server, on_server, monkeypatch
):
    qdrant_server.key = KEY
    monkeypatch.setenv("QDRANT_API_KEY", "old-key")
    prompts = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or KEY)
    result = millpond("index", corpus, "--out", tmp_path / "index", *on_server, "--ask-key")
    assert result.exit_code == 0, result.stderr
    assert prompts == [f"API key of {qdrant_server.url}: "]
    assert KEY not in result.output
    for path in (tmp_path / "index").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("ending", [KeyboardInterrupt, EOFError])
def test_a_prompt_that_is_left_ends_the_run(
    ending, millpond, corpus, tmp_path, qdrant_server, on_server, monkeypatch
):
    def leave(prompt):
        raise ending

    monkeypatch.setattr("getpass.getpass", leave)
    result = millpond("index", corpus, "--out", tmp_path / "index", *on_server, "--ask-key")
    assert result.exit_code == (130 if ending is KeyboardInterrupt else 2)
    assert qdrant_server.requests == []


def test_a_key_that_is_typed_at_a_terminal_is_not_shown(corpus, tmp_path, qdrant_server, on_server):
    qdrant_server.key = "another"
    ours, terminal = pty.openpty()
    args = ("index", corpus, "--out", tmp_path / "index", *on_server, "--ask-key")
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


def test_without_a_terminal_no_key_is_asked_for(corpus, tmp_path, on_server):
    args = ("index", corpus, "--out", tmp_path / "index", *on_server, "--ask-key")
    ends = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with run_process(*args, **ends, start_new_session=True) as process:
        _, said = process.communicate()
    assert process.returncode == 2
    assert said.startswith("Error: --ask-key needs a terminal")
    assert len(said.splitlines()) == 1


def test_a_taken_name_needs_overwrite_which_replaces_it(
    millpond, corpus, write_jsonl, tmp_path, qdrant_server, on_server
):
    first, second = tmp_path / "first", tmp_path / "second"
    assert millpond("index", corpus, "--out", first, *on_server).exit_code == 0
    result = millpond("index", corpus, "--out", second, *on_server)
    assert_refused(result, 2, "already has a collection 'docs' of 3 documents", "--overwrite")
    [before] = qdrant_server.collections
    other = write_jsonl("other.jsonl", {"_id": "z", "text": "new"})
    result = millpond("index", other, "--out", first, *on_server, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert qdrant_server.aliases["docs"] != before
    assert len(open_index(first)) == 1


def test_a_collection_of_somebody_else_is_left_alone(
    millpond, corpus, tmp_path, qdrant_server, on_server
):
    foreign = {"body": {"vectors": {"size": 4, "distance": "Dot"}}, "points": {}}
    qdrant_server.collections["docs"] = foreign
    args = (*on_server, "--overwrite")
    result = millpond("index", corpus, "--out", tmp_path / "index", *args)
    assert_refused(result, 2, "that millpond did not make", "--collection")
    assert qdrant_server.collections == {"docs": foreign}


def test_after_a_failed_upload_the_same_command_embeds_nothing_again(
    millpond, corpus, tmp_path, qdrant_server, on_server
):
    args = ("index", corpus, "--out", tmp_path / "index", *on_server)
    qdrant_server.failures.append(["PUT", "/points", 400, 1, {}])
    assert_refused(millpond(*args), 1, "cannot do this: not now (400)")
    assert qdrant_server.collections == {}
    result = millpond(*args)
    assert result.exit_code == 0, result.stderr
    assert "Going on: 3 documents were embedded before." in result.stderr
    assert len(open_index(tmp_path / "index")) == 3


@pytest.mark.parametrize("command", ["add", "update", "delete", "check", "search"])
def test_a_stored_index_asks_for_the_key_of_its_server(
    command, millpond, corpus, write_jsonl, tmp_path, qdrant_server, on_server, monkeypatch
):
    qdrant_server.key = KEY
    monkeypatch.setenv("MILLPOND_QDRANT_API_KEY", KEY)
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index, *on_server).exit_code == 0
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


@pytest.mark.parametrize("command", ["add", "delete", "check"])
def test_an_index_without_a_server_asks_for_no_key(command, millpond, corpus, tmp_path):
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index).exit_code == 0
    given = {"add": [corpus], "delete": ["a"], "check": []}
    result = millpond(command, index, *given[command], "--ask-key")
    assert_refused(result, 2, "--ask-key concerns a Qdrant server", "Leave it out")


def test_an_addition_that_failed_says_where_it_goes_on(
    millpond, corpus, write_jsonl, tmp_path, qdrant_server, on_server
):
    index = tmp_path / "index"
    assert millpond("index", corpus, "--out", index, *on_server).exit_code == 0
    more = write_jsonl("more.jsonl", {"_id": "y", "text": "newer"}, {"_id": "z", "text": "new"})
    qdrant_server.failures.append(["PUT", "/points", 400, 1, {}])
    assert_refused(millpond("add", index, more), 1, "cannot do this: not now (400)")
    result = millpond("add", index, more)
    assert result.exit_code == 0, result.stderr
    assert "Going on: 2 documents were stored before." in result.stderr
    assert "Added 2" in result.stderr
