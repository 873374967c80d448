"""The index object: texts and vectors are searched, and it shows what its changes made of it."""

import json

import numpy as np
import pytest

from indexes import Index, IndexConfig
from retrieval import Document, VectorIndex
from retrieval.errors import FingerprintError, RecordError, UsageError, VectorError
from tests.indexes import fakes


@pytest.fixture
def index(tmp_path, encoder, documents):
    return Index.create(tmp_path / "i", encoder, documents)


def test_it_is_a_vector_index(index, encoder):
    assert isinstance(index, VectorIndex)
    assert (len(index), index.dimension, index.fingerprint) == (25, 16, encoder.fingerprint)


def test_one_text_several_texts_and_vectors_find_the_same(index, encoder, documents):
    texts = [document.content for document in documents[:3]]
    by_vectors = index.search(encoder.encode_queries(texts), 2)
    assert [hits[0].doc_id for hits in by_vectors] == ["d0", "d1", "d2"]
    assert index.search(texts, 2, mode="dense") == by_vectors
    assert index.search(texts[1], 2, mode="dense") == by_vectors[1]
    assert index.search([], 2) == []
    assert index.search(texts[1], 2, where="n > 1")[0].doc_id != "d1"
    assert index.search(texts[1], 1, with_text=False)[0].text == ""


def test_texts_need_the_model_that_made_the_index(index):
    opened = Index.open(index.folder)
    message = r"need the model that made the index, 'hash'.*Index\.open\(folder, encoder\)"
    with pytest.raises(UsageError, match=message):
        opened.search("a text")
    with pytest.raises(UsageError, match=message):
        opened.add([Document("new", "x")])
    with pytest.raises(FingerprintError, match="made with 'hash'"):
        Index.open(index.folder, fakes.HashingEncoder(model="other"))


@pytest.mark.parametrize("queries", [[[1.0] * 16], np.ones(16, dtype=np.float32), None])
def test_what_is_neither_text_nor_vectors_is_refused(index, queries):
    with pytest.raises(VectorError, match="queries: the vectors"):
        index.search(queries, 1)


def test_a_corpus_can_be_named(tmp_path, encoder):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": str(n), "text": "x"}) + "\n" for n in range(3)))
    index = Index.create(tmp_path / "i", encoder, corpus)
    assert (len(index), index.manifest.corpus_name) == (3, str(corpus))
    assert index.add(str(corpus)).unchanged == 3


def test_dicts_are_documents_and_what_is_neither_is_named(tmp_path, encoder):
    rows = [{"id": 1, "title": "Mills", "text": "grind"}, {"_id": "b", "text": "sing", "n": 2}]
    index = Index.create(tmp_path / "dicts", encoder, rows)
    found = index.fetch(["1", "b"])
    assert found["1"] == Document("1", "grind", "Mills")
    assert found["b"].metadata == {"n": 2}
    with pytest.raises(UsageError, match=r"Number 2 of corpus is of type str; expected a Document"):
        index.update([rows[0], "a text"])
    with pytest.raises(RecordError, match=r"corpus:1: no text among 'id'"):
        index.add([{"id": 3}])


def test_the_object_shows_what_its_changes_made_of_it(index, encoder, documents):
    with index:
        index.add([Document("new", "a new text")])
        assert (len(index), index.search("a new text", 1)[0].doc_id) == (26, "new")
        index.update([Document("new", "another")])
        assert index.search("another", 1)[0].text == "another"
        index.delete(["new"])
        assert len(index) == len(index.search("another", 100)) == 25
        index.delete([d.doc_id for d in documents[:4]], IndexConfig(compact_share=1))
        assert index.compact().rows == 21
        assert index.reindex(factory="HNSW8") is index
        assert (index.manifest.factory, len(index)) == ("HNSW8", 21)
        assert index.check() == Index.open(index.folder).manifest


def test_a_filter_is_counted(index):
    assert index.count() == 25
    assert index.count("n >= 20") == 5
    with pytest.raises(UsageError):
        index.count("n >=")
