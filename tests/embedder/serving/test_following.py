"""A running server goes on with what other processes make of its indexes."""

import shutil
import threading

import httpx
import numpy as np
import pytest

from cli.commands.serve import _serve_index
from embedder.serving import running
from indexes import Index, IndexConfig
from indexes.group import IndexGroup
from retrieval import Document
from retrieval.errors import StorageError
from tests.embedder.serving import fakes

CLIENTS = 8


@pytest.fixture(params=["faiss", "qdrant"])
def backend(request):
    if request.param == "qdrant":
        pytest.importorskip("qdrant_edge")
    return request.param


@pytest.fixture
def folder(tmp_path, encoder, backend):
    config = IndexConfig(backend=backend)
    Index.create(tmp_path / "ponds", encoder, documents("first"), config).close()
    return tmp_path / "ponds"


@pytest.fixture
def client(serve, folder, encoder, monkeypatch):
    monkeypatch.setattr(running, "LOOK_SECONDS", 0.02)
    model = fakes.make_model(encoder)
    index = _serve_index("ponds", Index.open(folder), model, None, other_prompt=False)
    return serve([model], [index], join=IndexGroup)


def documents(version, count=12):
    return [Document(f"d{number}", f"{version} text {number}") for number in range(count)]


def update(folder, encoder, version, count=12):
    Index.open(folder, encoder).update(documents(version, count), delete_missing=True)


def ask(client, text="first text 3", **more):
    body = {"query": text, "input_type": "document", "mode": "dense", "k": 1, **more}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"][0]


def health(client):
    (index,) = client.get("/health").json()["indexes"]
    return index


def until_version(client, folder):
    wanted = Index.open(folder).manifest.version
    fakes.wait_until(lambda: health(client)["version"] == wanted)
    return wanted


def test_an_update_is_served_and_its_version_is_named(client, folder, encoder):
    before = health(client)
    assert before["documents"] == 12
    update(folder, encoder, "second", count=9)
    version = until_version(client, folder)
    assert ask(client, "second text 3")["text"] == "second text 3"
    assert health(client) == {"name": "ponds", "version": version, "documents": 9, "trouble": None}
    metrics = client.get("/metrics").text
    assert f'millpond_index_version{{index="ponds",version="{version}"}} 1.0' in metrics
    assert before["version"] not in metrics
    assert 'millpond_index_documents{index="ponds"} 9.0' in metrics
    assert 'millpond_index_behind{index="ponds"} 0.0' in metrics


@pytest.mark.slow
def test_changes_while_clients_search_give_no_error_and_no_wrong_hit(client, folder, encoder):
    ended, faults, answers = threading.Event(), [], []

    def search(number):
        with httpx.Client(base_url=client.base_url, timeout=120) as mine:
            while not ended.is_set():
                body = {"query": f"first text {number}", "input_type": "document"}
                body |= {"mode": "dense", "k": 3}
                answer = mine.post("/v1/search", json=body)
                answers.append(answer.status_code)
                if answer.status_code != 200:
                    faults.append(answer.text)
                    continue
                for hit in answer.json()["hits"]:
                    score = float(encoder.vector(body["query"]) @ encoder.vector(hit["text"]))
                    if abs(score - hit["score"]) > 1e-5:
                        faults.append(hit)

    clients = [threading.Thread(target=search, args=[number]) for number in range(CLIENTS)]
    for one in clients:
        one.start()
    for version in ("second", "first"):
        update(folder, encoder, version)  # replaces every row, so it compacts too
        Index.open(folder, encoder).delete(["d1", "d2", "d4"])
        Index.open(folder, encoder).reindex()
    until_version(client, folder)
    shutil.rmtree(folder)
    fakes.wait_until(lambda: health(client)["trouble"] is not None)
    seen = len(answers)
    fakes.wait_until(lambda: len(answers) > seen + CLIENTS)  # it goes on without the folder
    ended.set()
    for one in clients:
        one.join()
    assert faults == []


def test_a_deleted_folder_is_told_and_one_that_is_put_back_is_served(client, folder, encoder):
    shutil.move(folder, folder.with_name("away"))
    fakes.wait_until(lambda: health(client)["trouble"])
    assert "folder is gone" in health(client)["trouble"]
    assert ask(client)["text"] == "first text 3"
    update(folder.with_name("away"), encoder, "second")
    shutil.move(folder.with_name("away"), folder)
    until_version(client, folder)
    assert ask(client, "second text 3")["text"] == "second text 3"
    assert health(client)["trouble"] is None


def test_an_index_of_another_model_does_not_take_its_place(client, folder, encoder, backend):
    config = IndexConfig(backend=backend, overwrite=True)
    before = health(client)["version"]
    other = fakes.HashingEncoder("other")
    Index.create(folder, other, documents("foreign"), config)
    fakes.wait_until(lambda: health(client)["trouble"])
    assert "another model made its newer version" in health(client)["trouble"]
    assert health(client)["version"] == before
    assert ask(client)["text"] == "first text 3"
    assert 'millpond_index_behind{index="ponds"} 1.0' in client.get("/metrics").text
    Index.create(folder, encoder, documents("second"), config)
    until_version(client, folder)
    assert ask(client, "second text 3")["text"] == "second text 3"
    assert health(client)["trouble"] is None


def test_a_damaged_manifest_does_not_take_its_place(client, folder):
    (folder / "manifest.json").write_text("{")
    fakes.wait_until(lambda: health(client)["trouble"])
    assert "cannot be opened" in health(client)["trouble"]
    assert str(folder) not in health(client)["trouble"]
    assert ask(client)["text"] == "first text 3"


def test_a_search_that_fails_looks_for_a_newer_version_at_once(serve, folder, encoder, monkeypatch):
    monkeypatch.setattr(running, "LOOK_SECONDS", 3600)
    opened = Index.open(folder)
    model = fakes.make_model(encoder)
    client = serve([model], [_serve_index("ponds", opened, model, None, other_prompt=False)])

    def fail(*arguments, **options):
        raise StorageError("the collection is gone from http://10.0.0.7:6333")

    opened.search = fail
    answer = client.post("/v1/search", json={"query": "x"})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "index_unavailable"
    assert "what stores it does not answer" in answer.json()["error"]["message"]
    assert "10.0.0.7" not in answer.text  # where it lies is said in the log alone
    update(folder, encoder, "second")
    assert ask(client, "second text 3")["text"] == "second text 3"


def test_a_joined_search_sees_the_newer_version(client, folder, encoder):
    update(folder, encoder, "second")
    until_version(client, folder)
    assert ask(client, "second text 3", index=["ponds", "ponds"])["text"] == "second text 3"


def test_health_names_indexes_to_those_who_have_a_key(serve, folder, encoder):
    model = fakes.make_model(encoder)
    index = _serve_index("ponds", Index.open(folder), model, None, other_prompt=False)
    client = serve([model], [index], keys=("secret",))
    assert client.get("/health").json() == {"live": True, "ready": True, "indexes": None}
    known = client.get("/health", headers={"Authorization": "Bearer secret"}).json()
    assert [one["name"] for one in known["indexes"]] == ["ponds"]


def test_a_version_is_the_digest_that_the_manifest_carries(folder):
    manifest = Index.open(folder).manifest
    text = (folder / "manifest.json").read_text()
    assert f'"digest": "{manifest.version}' in text
    assert len(manifest.version) == 12
    assert np.unique([Index.open(folder).manifest.version for _ in range(2)]).size == 1
