"""``serve --accept-documents``: clients change an index over HTTP, behind a key."""

import re

import httpx
import pytest

from cli.commands.serve import _serve_index
from embedder.serving import Server, ServerSettings
from indexes import Index
from retrieval import Document
from tests.embedder.serving import fakes

DOCUMENTS = [Document("a", "mills grind corn", "Mills"), Document("b", "frogs sing")]


@pytest.fixture
def encoder():
    return fakes.HashingEncoder()


@pytest.fixture
def folder(encoder, tmp_path):
    Index.create(tmp_path / "notes", encoder, DOCUMENTS)
    return tmp_path / "notes"


@pytest.fixture
def serve(encoder, folder):
    """Return a client of a server whose index may be changed, or may not."""
    running = []

    def start(editable=True):
        model = fakes.make_model(encoder)
        editor = encoder if editable else None
        index = _serve_index("notes", Index.open(folder), model, None, False, editor)
        settings = ServerSettings(keys=("key",))
        started = fakes.RunningServer(Server([model], [index], settings))
        headers = {"Authorization": "Bearer key"}
        client = httpx.Client(base_url=started.url, timeout=120, headers=headers)
        running.append((started, client))
        return client

    yield start
    for started, client in running:
        client.close()
        started.stop()


PLACE = "/v1/indexes/notes/documents"


def found(client, query, **options):
    body = {"query": query, "input_type": "document", **options}
    return [hit["doc_id"] for hit in client.post("/v1/search", json=body).json()["hits"]]


def test_documents_are_added_replaced_and_deleted(serve, encoder, folder):
    client = serve()
    encoder.batches.clear()
    sent = [
        {"id": "a", "text": "mills grind rye", "title": "Mills"},
        {"id": "b", "text": "frogs sing"},
        {"id": 7, "text": "otters swim", "metadata": {"year": 1851}},
    ]
    answer = client.post(PLACE, json={"documents": sent})
    assert answer.json() == {
        "index": "notes",
        "added": 1,
        "replaced": 1,
        "relabelled": 0,
        "unchanged": 1,
        "deleted": 0,
        "missing": 0,
    }
    embedded = [text for role, texts in encoder.batches for text in texts]
    assert sorted(embedded) == ["Mills mills grind rye", "otters swim"]
    assert found(client, "otters swim", k=1) == ["7"]
    assert found(client, "otters", mode="lexical", filter="year == 1851") == ["7"]
    answer = client.post(f"{PLACE}/delete", json={"ids": ["7", "x"], "ignore_missing": True})
    assert (answer.json()["deleted"], answer.json()["missing"]) == (1, 1)
    assert sorted(found(client, "otters swim")) == ["a", "b"]
    assert len(Index.open(folder)) == 2


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("", {"documents": []}, "documents"),
        ("", {"documents": [{"id": "a"}]}, "text"),
        ("", {"documents": [{"id": "", "text": "x"}]}, "an id of one character or more"),
        ("", {"documents": [{"id": "a", "text": "x\u0000"}]}, "documents:1.*NUL"),
        ("", {"documents": [{"id": "a", "text": "x"}] * 2}, "came before"),
        ("", {"documents": [{"id": "a", "text": "x", "tittle": "y"}]}, "tittle"),
        ("/delete", {"ids": ["x"]}, "1 of the ids is not in notes"),
        ("/delete", {"ids": ["a", "b"]}, "No document would be left in notes"),
    ],
)
def test_what_cannot_be_done_changes_nothing(serve, folder, path, body, words):
    client = serve()
    before = (folder / "manifest.json").read_bytes()
    answer = client.post(PLACE + path, json=body)
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert re.search(words, message), message
    assert str(folder.parent) not in message
    assert (folder / "manifest.json").read_bytes() == before


def test_a_key_is_needed_and_the_index_has_to_be_known(serve):
    client = serve()
    body = {"documents": [{"id": "c", "text": "x"}]}
    assert client.post(PLACE, json=body, headers={"Authorization": "Bearer no"}).status_code == 401
    assert client.post("/v1/indexes/other/documents", json=body).status_code == 404


def test_it_is_off_by_default(serve):
    answer = serve(editable=False).post(PLACE, json={"documents": [{"id": "c", "text": "x"}]})
    assert answer.status_code == 403
    assert "--accept-documents" in answer.json()["error"]["message"]


def test_while_another_process_changes_the_index_it_is_busy(serve, folder):
    client = serve()
    with Index.open(folder).transaction():
        answer = client.post(PLACE, json={"documents": [{"id": "c", "text": "x"}]})
    assert answer.status_code == 503
    assert "another process changes it" in answer.json()["error"]["message"]
    assert str(folder.parent) not in answer.text


def test_without_keys_nobody_may_change_an_index(millpond, index_folder, monkeypatch):
    monkeypatch.delenv("MILLPOND_KEYS", raising=False)
    result = millpond("serve", index_folder, "--accept-documents", "--port", 0)
    assert result.exit_code == 2
    assert "--keys FILE" in result.stderr
    monkeypatch.setenv("MILLPOND_KEYS", "key")
    asked = (index_folder, "--accept-documents", "--instruction", "x", "--port", 0)
    result = millpond("serve", *asked)
    assert result.exit_code == 2
    assert "Leave it or --accept-documents out" in result.stderr
