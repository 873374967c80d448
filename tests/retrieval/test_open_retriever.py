"""``Retriever.open``: one call gives the index with the model that made it."""

import pytest

from embedder import loading
from indexes import Index
from retrieval.errors import FingerprintError, SourceNotFoundError
from retrieval.retriever import Retriever
from tests.indexes import fakes


@pytest.fixture
def folder(tmp_path):
    encoder = fakes.HashingEncoder(model="made-it")
    return Index.create(tmp_path / "i", encoder, fakes.make_documents(5)).folder


@pytest.fixture
def loaded(monkeypatch):
    """Replace the loading of models; holds what was asked for."""
    asked = []

    def load(model, device, speed, notify, trust_remote_code=False):
        asked.append((model, device, speed))
        notify(f"loading {model}")
        return fakes.HashingEncoder(model=model)

    monkeypatch.setattr(loading, "load_encoder", load)
    return asked


def test_the_model_is_the_one_that_made_the_index(folder, loaded):
    lines = []
    with Retriever.open(folder, notify=lines.append) as retriever:
        assert retriever.search("title 3 text 3 of d", k=1)[0].doc_id == "d3"
    assert loaded == [("made-it", None, "exact")]
    assert lines == ["loading made-it"]


def test_an_index_that_is_open_is_used_as_it_is(folder, loaded):
    index = Index.open(folder)
    assert Retriever.open(index, device="cpu", speed="fast").index is index
    assert loaded == [("made-it", "cpu", "fast")]


def test_one_text_needs_no_whole_model_where_there_is_a_light_one(folder, loaded, monkeypatch):
    light = fakes.HashingEncoder(model="made-it")
    monkeypatch.setattr("embedder.light.load_light_encoder", lambda model, is_int8: light)
    assert Retriever.open(folder, one_text=True).encoder is light
    assert Retriever.open(folder, one_text=True, device="cuda").encoder is not light
    assert Retriever.open(folder).encoder is not light


def test_another_model_is_refused(folder, loaded):
    with pytest.raises(FingerprintError, match="made with 'made-it', the query comes from 'other'"):
        Retriever.open(folder, "other")


def test_without_an_index_no_model_is_loaded(tmp_path, loaded):
    with pytest.raises(SourceNotFoundError, match="no index"):
        Retriever.open(tmp_path / "nowhere")
    assert loaded == []
