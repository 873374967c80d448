import importlib.util
import socket

import pytest
from starlette.testclient import TestClient

import cli.commands.index
import embedder.loading
from embedder.serving import ServedModel, ServerSettings, build_app
from embedder.serving.served import Tokens


@pytest.fixture
def apps(monkeypatch, loaded):
    """Replace models by the fake encoder and the endless run by a list of what would run."""
    encoders = cli.commands.index.load_encoder  # the fake one of the fixture ``loaded``
    ran = []
    names = []

    def load(model, device, speed, notify, trust_remote_code=False):
        names.append(model)
        if speed == "fast":
            notify("speed fast: as fast as it gets.")
        return encoders(model, device, speed)

    def describe(encoder):
        encoder.encode_tokens = encoder.encode_queries  # a row is a text here
        return ServedModel(
            encoder.fingerprint.model,
            encoder,
            lambda texts, role: Tokens(texts, [False] * len(texts)),
            8,
        )

    def run(app, listener):
        # Its address has been told: whoever connects now is not refused.
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ran.append((app.state.server, listener.getsockname()))
        listener.close()

    monkeypatch.setattr("embedder.loading.load_encoder", load)
    monkeypatch.setattr("cli.commands.serve._log_as_json", lambda: None)
    monkeypatch.setattr("embedder.serving.served.serve_embedder", describe)
    monkeypatch.setattr("embedder.serving.run_app", run)
    monkeypatch.delenv("MILLPOND_KEYS", raising=False)
    return ran, names


@pytest.fixture
def build(millpond, write_jsonl, tmp_path):
    """Index two documents with a model of the given name."""
    corpus = write_jsonl("c.jsonl", {"_id": "a", "text": "one"}, {"_id": "b", "text": "two"})

    def index(name, model, *options):
        folder = tmp_path / name
        made = millpond("index", corpus, "--out", folder, "--model", model, *options)
        assert made.exit_code == 0
        return folder

    return index


def start(millpond, apps, *args):
    result = millpond("serve", "--port", 0, *args)
    assert result.exit_code == 0, result.output
    (server, address), *_ = apps[0][-1:]
    return server, address, result.stderr


def test_without_anything_the_default_model_is_served_on_loopback(millpond, apps):
    server, address, said = start(millpond, apps)
    assert apps[1] == [None]
    assert address[0] == "127.0.0.1"
    assert f"Serving fake at http://127.0.0.1:{address[1]}" in said
    assert server.settings == ServerSettings(local_only=True)  # on loopback, without keys
    assert "key" not in said


def test_an_index_brings_its_own_model_and_equal_ones_share_it(millpond, apps, build):
    folders = [build(name, model) for name, model in (("a", "m1"), ("b", "m2"), ("c", "m1"))]
    server, _, _ = start(millpond, apps, *folders)
    assert apps[1] == ["m1", "m2"]
    assert list(server.models) == ["m1", "m2"]
    assert {name: index.model.name for name, index in server.indexes.items()} == {
        "a": "m1",
        "b": "m2",
        "c": "m1",
    }
    assert len(server.indexes["a"].index) == 2


def test_a_real_index_is_searched_with_a_filter(millpond, apps, write_jsonl, tmp_path):
    rows = [{"_id": f"d{year}", "text": "a dam", "year": year} for year in (2019, 2020, 2021)]
    folder = tmp_path / "years"
    corpus = write_jsonl("years.jsonl", *rows)
    assert millpond("index", corpus, "--out", folder, "--model", "m1").exit_code == 0
    server, _, _ = start(millpond, apps, folder)
    with TestClient(build_app(server)) as client:
        body = {"query": "dam", "filter": "year >= 2020"}
        found = client.post("/v1/search", json=body, headers={"Host": "localhost"}).json()
        assert {hit["doc_id"] for hit in found["hits"]} == {"d2020", "d2021"}
        wrong = client.post(
            "/v1/search", json={**body, "filter": "yaer == 1"}, headers={"Host": "localhost"}
        )
        assert wrong.status_code == 400
        assert "'yaer'" in wrong.json()["error"]["message"]


def test_a_named_model_has_to_be_that_of_every_index(millpond, apps, build):
    folder = build("a", "m1")
    server, _, _ = start(millpond, apps, folder, "--model", "m1")
    assert list(server.models) == ["m1"]
    refused = millpond("serve", "--port", 0, folder, "--model", "m2")
    assert refused.exit_code == 2
    assert "'m1'" in refused.stderr
    assert "'m2'" in refused.stderr


def test_an_index_whose_model_has_changed_is_refused(millpond, apps, build, monkeypatch):
    folder = build("a", "m1")
    load = embedder.loading.load_encoder
    monkeypatch.setattr(
        "embedder.loading.load_encoder", lambda name, *rest, **more: load("other", *rest, **more)
    )
    refused = millpond("serve", "--port", 0, folder)
    assert refused.exit_code == 2
    assert "cannot be compared" in refused.stderr


def test_each_index_is_served_at_the_speed_it_was_made_with(millpond, apps, build):
    folder, other = build("a", "m1", "--speed", "fast"), build("b", "m2", "--speed", "fast")
    refused = millpond("serve", "--port", 0, folder, "--speed", "exact")
    assert refused.exit_code == 2
    assert "a was made with 'm1' and int8 layers (--speed fast)" in refused.stderr
    assert "Leave --speed exact out, or index the corpus again." in refused.stderr
    exact = build("c", "m3")
    server, _, said = start(millpond, apps, folder, other, exact)
    assert list(server.models) == ["m1", "m2", "m3"]
    layers = [
        served.encoder.fingerprint.settings.get("linear_layers")
        for served in server.models.values()
    ]
    assert layers == ["int8", "int8", None]
    assert said.count("speed fast:") == 1  # two models, one machine
    named, *_ = start(millpond, apps, folder, "--model", "m1")
    assert list(named.models) == ["m1"]


def test_indexes_can_be_named(millpond, apps, build):
    folder = build("a", "m1")
    server, _, _ = start(millpond, apps, f"new={folder}", "--index", f"old={folder}")  # of scripts
    assert list(server.indexes) == ["new", "old"]
    refused = millpond("serve", "--port", 0, folder, folder)
    assert refused.exit_code == 2
    assert "NAME=DIR" in refused.stderr


def test_keys_come_from_a_file_or_the_environment(millpond, apps, tmp_path, monkeypatch):
    monkeypatch.setenv("MILLPOND_KEYS", "k1 k2")
    server, _, _ = start(millpond, apps)
    assert server.settings.keys == ("k1", "k2")
    path = tmp_path / "keys.txt"
    path.write_text("k3\n")
    server, _, _ = start(millpond, apps, "--keys", path)
    assert server.settings.keys == ("k3",)
    monkeypatch.setenv("MILLPOND_KEYS", " ")
    refused = millpond("serve", "--port", 0)
    assert refused.exit_code == 2
    assert "MILLPOND_KEYS holds no key" in refused.stderr


def test_listening_beyond_loopback_without_keys_is_noted(millpond, apps, monkeypatch):
    server, _, said = start(millpond, apps, "--host", "0.0.0.0")
    assert not server.settings.local_only
    assert "it asks for no key" in said
    monkeypatch.setenv("MILLPOND_KEYS", "k1")
    server, _, said = start(millpond, apps, "--host", "0.0.0.0")
    assert not server.settings.local_only
    assert "it asks for no key" not in said


def test_limits_reach_the_server(millpond, apps):
    options = {"batch-tokens": 5, "queue-tokens": 6, "queue-requests": 7, "body-bytes": 8}
    pairs = [text for name, value in options.items() for text in (f"--{name}", value)]
    pairs += ["--connections", 9, "--accept-token-ids"]
    server, _, _ = start(millpond, apps, *pairs, "--cors", "https://a.example")
    assert server.settings == ServerSettings(
        batch_tokens=5,
        queue_tokens=6,
        queue_requests=7,
        body_bytes=8,
        connections=9,
        accept_token_ids=True,
        local_only=True,
        origins=("https://a.example",),
    )


def test_a_port_in_use_is_an_error_before_any_model_loads(millpond, apps):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = millpond("serve", "--port", taken.getsockname()[1])
    assert refused.exit_code == 2
    assert "or 0 for any free one" in refused.stderr
    assert apps[1] == []


def test_an_index_on_a_qdrant_server_is_served_with_the_key_that_url_allows(
    millpond, apps, build, tmp_path, qdrant_server, qdrant_place, monkeypatch
):
    here = build("here", "fake")
    there = build("there", "fake", *qdrant_place)
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    named = ("--url", qdrant_server.url)
    for places, keys in (((), {None}), (named, {"secret"})):
        qdrant_server.requests.clear()
        start(millpond, apps, here, there, *places)
        assert {one.headers.get("api-key") for one in qdrant_server.requests} == keys
    refused = millpond("serve", "--port", 0, here, *named)
    assert (refused.exit_code, "Only a Qdrant server has a use" in refused.stderr) == (2, True)


def test_a_missing_extra_names_what_to_type(millpond, apps, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    refused = millpond("serve")
    assert refused.exit_code == 1
    assert 'uvicorn, which is not installed. Type: pip install "millpond[serve]"' in refused.stderr


def test_what_help_shows_are_the_defaults_of_the_server(millpond):
    shown = " ".join(millpond("serve", "--help").stdout.split())
    assert f"[default: ({ServerSettings.batch_tokens}, or" in shown
    assert f"[default: {ServerSettings.queue_tokens};" in shown
    assert f"[default: {ServerSettings.queue_requests};" in shown
    assert f"[default: {ServerSettings.body_bytes};" in shown
    assert f"[default: {ServerSettings.connections};" in shown
