"""Which server gets a request, and which one the key: those that the user named, and no other."""

import json
from dataclasses import replace

import pytest

from indexes import Index, read_manifest
from indexes.backends.qdrant import QdrantOptions, configured_backend
from indexes.backends.qdrant.connection import Connection, find_api_key
from indexes.backends.qdrant.options import check_url
from indexes.backends.qdrant.store import read_collection_state
from retrieval.errors import IndexCorruptError, StorageError, UsageError
from tests.indexes.backends.qdrant.fake_server import FakeServer

KEY = "s3cret"
ELSEWHERE = "https://qdrant.example:6333"


@pytest.fixture
def folder(tmp_path, write_with, options, encoder, documents):
    """An index of 25 documents on the server."""
    write_with(options, encoder, documents, tmp_path / "i")
    return tmp_path / "i"


@pytest.fixture
def stranger():
    """A server that somebody else runs."""
    running = FakeServer()
    yield running
    running.stop()


def receive(folder, **settings):
    """Let the manifest say what somebody who sends an index may write into it."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"].update(settings)
    manifest.pop("digest", None)
    path.write_text(json.dumps(manifest))


def stated(folder):
    return QdrantOptions.from_manifest(read_manifest(folder))


@pytest.mark.parametrize("variable", ["QDRANT_API_KEY", "MILLPOND_QDRANT_API_KEY"])
def test_a_received_index_takes_no_key_to_its_server(
    folder, server, stranger, encoder, monkeypatch, variable
):
    monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("MILLPOND_QDRANT_URL", server.url)
    stranger.collections.update(server.collections)
    receive(folder, url=stranger.url)
    index = Index.open(folder, encoder)
    assert len(index.search("x", 1)) == 1
    index.reindex()
    read_collection_state(read_manifest(folder))
    assert len(stranger.requests) > 10
    assert [r.path for r in stranger.requests if "api-key" in r.headers] == []


def test_the_same_index_sends_the_key_once_its_server_is_named(folder, server, monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    server.requests.clear()
    Index.open(folder)
    assert {r.headers.get("api-key") for r in server.requests} == {None}
    monkeypatch.setenv("MILLPOND_QDRANT_URL", server.url + "/")
    server.requests.clear()
    Index.open(folder)
    assert {r.headers.get("api-key") for r in server.requests} == {KEY}


@pytest.mark.parametrize("named", ["", "https://other.example:6333", "http://qdrant.example"])
def test_a_server_elsewhere_that_only_a_manifest_names_gets_nothing(folder, monkeypatch, named):
    # https and http are two origins: naming the one does not allow the other.
    monkeypatch.setenv("MILLPOND_QDRANT_URL", named)
    receive(folder, url=ELSEWHERE)
    monkeypatch.setattr(Connection, "run", lambda *arguments, **options: pytest.fail("it was sent"))
    expected = f"nothing was sent.*MILLPOND_QDRANT_URL={ELSEWHERE}, or type --url {ELSEWHERE} "
    with pytest.raises(UsageError, match=expected):
        Index.open(folder)
    with pytest.raises(UsageError, match=expected):
        read_collection_state(read_manifest(folder))
    backend = configured_backend()
    with pytest.raises(UsageError, match=expected):
        backend.like(read_manifest(folder)).check(16, "Flat")


@pytest.mark.parametrize(
    "url",
    [
        "http://qdrant.example:6333",
        "http://10.0.0.5:6333",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://0.0.0.0:6333",
    ],
)
def test_a_key_goes_over_a_network_by_tls_alone(server, monkeypatch, url):
    options = QdrantOptions(url=url, collection="docs")
    Connection(options).close()  # without a key there is nothing to keep
    with pytest.raises(UsageError, match="in clear text.*https://, or leave the key out"):
        Connection(replace(options, api_key=KEY))
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    with pytest.raises(UsageError, match="or unset QDRANT_API_KEY") as caught:
        Connection(options)
    assert KEY not in str(caught.value)
    assert find_api_key(QdrantOptions(url="https://h", collection="docs")) == KEY


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.2", "[::1]"])
def test_a_key_stays_on_this_machine_without_tls(server, host):
    options = QdrantOptions(url=f"http://{host}:6333", collection="docs", api_key=KEY)
    Connection(options).close()  # warnings are errors here


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example//evil.example",  # qdrant-client would join it to https://evil.example
        "http://localhost\\.evil.example",
        "http://localhost\\@evil.example",
        "https://good.example/ evil",
        "https://qdrant.ex\u0430mple",  # a Cyrillic letter that looks like "a"
        "https://good.example\x1b[2K",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_refused(url, folder):
    with pytest.raises(UsageError, match="The Qdrant url"):
        check_url(url)
    receive(folder, url=url)
    with pytest.raises(IndexCorruptError, match="does not say where the vectors are"):
        Index.open(folder)


def test_a_manifest_cannot_name_its_server_in_place_of_the_user(folder, server, monkeypatch):
    receive(folder, url=ELSEWHERE, received=False, api_key="theirs", overwrite=True)
    assert (stated(folder).received, stated(folder).api_key) == (True, "")
    assert not stated(folder).overwrite
    receive(folder, url=7)
    with pytest.raises(IndexCorruptError, match="does not say where"):
        stated(folder)


def test_a_bad_address_in_the_environment_is_named(folder, monkeypatch):
    monkeypatch.setenv("MILLPOND_QDRANT_URL", "qdrant.example:6333")
    with pytest.raises(UsageError, match="variable MILLPOND_QDRANT_URL: The Qdrant url is"):
        Index.open(folder)


def test_a_server_that_wants_the_key_says_that_it_has_to_be_named(folder, server, monkeypatch):
    server.key = KEY
    monkeypatch.setenv("MILLPOND_QDRANT_API_KEY", KEY)
    expected = f"variable MILLPOND_QDRANT_API_KEY. If .* set MILLPOND_QDRANT_URL={server.url}"
    with pytest.raises(StorageError, match=expected):
        Index.open(folder)


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(server, stranger, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", stranger.url)
    monkeypatch.setenv("http_proxy", stranger.url)
    options = QdrantOptions(url=server.url, collection="docs", api_key=KEY)
    with Connection(options) as connection:
        connection.client.get_collections()
    assert stranger.requests == []
    assert server.requests
