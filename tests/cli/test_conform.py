"""``millpond conform`` over our own server and over a faulty one: output and exit codes."""

import inspect
import json
from dataclasses import replace
from typing import get_args

import pytest

from cli.commands.conform import ApiName, conform
from embedder import Embedder
from embedder.conform.endpoint import APIS
from embedder.conform.findings import LEAST_COSINE
from embedder.serving import Server, ServerSettings
from embedder.serving.served import serve_embedder
from tests.embedder.conform.faulty_server import FaultyServer
from tests.embedder.serving.fakes import RunningServer
from tests.embedder.tiny_decoders import write_base


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    folder = write_base(tmp_path_factory.mktemp("llama"), "llama")
    return f"{folder}:mean+causal,max_tokens=100,query_prompt=query: "


@pytest.fixture(scope="module")
def tiny(name):
    return Embedder.load(name, device="cpu")


@pytest.fixture(scope="module")
def url(name, tiny):
    """Where ``millpond serve`` answers."""
    running = RunningServer(Server([serve_embedder(tiny)], [], ServerSettings(), "1.2.3"))
    yield running.url
    running.stop()


@pytest.fixture
def run(millpond, real_models, monkeypatch):
    from cli.commands import conform as command
    from embedder.loading import load_encoder

    monkeypatch.setattr(command, "load_encoder", load_encoder)
    return lambda *args: millpond("conform", *args, "--device", "cpu")


@pytest.mark.parametrize("place", ["", "/v1", "/v1/embeddings"])
@pytest.mark.parametrize("role", ["query", "document"])
def test_millpond_serve_is_the_same_as_the_library(place, role, run, name, tiny, url):
    result = run(name, "--against", url + place, "--as", role)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert result.stdout.startswith(f"The same: {tiny.name} and {url} (openai, {tiny.name})\n")
    kinds = [line.split()[0] for line in result.stdout.splitlines()[3:]]
    assert kinds == [
        "short",
        "languages",
        "emoji",
        "case",
        "whitespace",
        "special",
        "empty",
        "long",
    ]
    assert "Why:" not in result.stdout


def test_by_the_api_of_tei_it_is_the_same_too(run, name, url):
    result = run(name, "--against", url, "--api", "tei", "--json")
    assert result.exit_code == 0, result.stdout
    found = json.loads(result.stdout)
    assert found["same"]
    assert (found["dimension_here"], found["dimension_there"]) == (32, 32)
    assert sum(kind["texts"] for kind in found["kinds"]) == 40


def test_a_server_without_the_prompt_exits_with_1_and_says_so(run, name, tiny):
    plain = Embedder(replace(tiny.spec, query_prompt=""), tiny.backbone)
    server = FaultyServer(plain.encode_queries)
    try:
        result = run(name, "--against", server.url, "--as", "query")
    finally:
        server.close()
    assert result.exit_code == 1
    assert result.stdout.startswith("Different: ")
    assert "- there, no prompt goes before a text; here, the query prompt is 'query: ' (least " in (
        result.stdout
    )


def test_another_model_of_this_machine_can_be_named(run, name, tiny):
    other = name.replace("mean+causal", "eos+causal")
    result = run(name, "--against", other, "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["cause"] == "pooling"
    assert finding["before"] < 0.9 < 0.999 < finding["after"]


def test_a_server_that_is_down_exits_with_2_before_a_model_loads(run, loaded):
    result = run("no-such-model", "--against", "http://127.0.0.1:9", "--api", "tei")
    assert result.exit_code == 2
    result = run("no-such-model", "--against", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert "http://127.0.0.1:9/v1/models cannot be reached" in result.stderr
    assert loaded == []


def test_a_model_that_cannot_be_loaded_exits_with_2_since_1_means_different(run, tmp_path, url):
    (tmp_path / "config.json").write_text("{}")
    result = run(tmp_path, "--against", url)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: The base ")


def test_options_of_a_server_go_with_an_address(run, name):
    result = run(name, "--against", name, "--remote-model", "x")
    assert result.exit_code == 2
    assert "go with an address" in result.stderr


def test_the_options_are_those_of_the_library():
    assert set(get_args(ApiName)) == set(APIS)
    assert inspect.signature(conform).parameters["least"].default == LEAST_COSINE
