"""Documents are fetched by id, passages put together again."""

import pytest

from indexes import Index, IndexConfig
from retrieval import Document, read_corpus
from tests.indexes import fakes


@pytest.fixture
def index(tmp_path):
    encoder = fakes.HashingEncoder()
    return Index.create(tmp_path / "i", encoder, fakes.make_documents(20))


def test_documents_come_as_they_were_given(index):
    expected = {document.doc_id: document for document in fakes.make_documents(20)}
    found = index.fetch(["d7", "d3", "nowhere", "d7"])
    assert found == {name: expected[name] for name in ("d7", "d3")}
    assert index.fetch("d1") == {"d1": expected["d1"]}
    assert index.fetch([]) == {}


def test_a_change_is_seen(index):
    assert list(index.fetch(["d1"])) == ["d1"]
    index.delete(["d1"])
    index.update([Document("d2", "another text")])
    assert {name: one.text for name, one in index.fetch(["d1", "d2"]).items()} == {
        "d2": "another text"
    }


class Halves:
    """Cuts a text into overlapping parts of 10 characters, each 4 after the one before."""

    def spans(self, text):
        return [(start, min(start + 10, len(text))) for start in range(0, len(text), 4)]

    def __call__(self, text):
        return [text[start:stop] for start, stop in self.spans(text)]


@pytest.mark.parametrize("text", ["0123456789abcdefghijklmnopqrstuvwxyz", "short", "x" * 10])
def test_passages_are_the_whole_document_again(tmp_path, text):
    documents = [Document("a#1", text, "T", {"year": 1}), Document("b", "other text of b")]
    encoder, config = fakes.HashingEncoder(), IndexConfig(passages={"tokens": 3, "overlap": 1})
    index = Index.create(tmp_path / "i", encoder, documents, config, split=Halves())
    assert index.fetch(["a#1", "b"]) == {one.doc_id: one for one in documents}


def test_blanks_between_passages_are_line_breaks(tmp_path):
    class Words(Halves):
        def spans(self, text):
            return [(0, 3), (5, 8)]

    config = IndexConfig(passages={"tokens": 3, "overlap": 1})
    documents = [Document("a", "one  two")]
    index = Index.create(tmp_path / "i", fakes.HashingEncoder(), documents, config, split=Words())
    assert index.fetch(["a"])["a"].text == "one\n\ntwo"


def test_passages_of_unknown_places_stand_one_after_another(tmp_path):
    config = IndexConfig(passages={"tokens": 3, "overlap": 1})
    documents = [Document("a", "one two")]
    index = Index.create(
        tmp_path / "i",
        fakes.HashingEncoder(),
        documents,
        config,
        split=lambda text: ["ONE", "TWO"],
    )
    assert index.fetch(["a"])["a"].text == "ONE\n\nTWO"


def test_a_source_given_by_name_is_read_as_the_index_was_made(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "sku": "2", "text": "red"}\n{"id": "2", "sku": "1", "text": "x"}')
    encoder, corpus = fakes.HashingEncoder(), read_corpus(path, id="sku")
    index = Index.create(tmp_path / "i", encoder, corpus)
    change = index.update(path)
    assert (change.added, change.replaced, change.unchanged) == (0, 0, 2)
