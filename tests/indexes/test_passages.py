"""Long documents as passages: searched by passage, found as documents."""

import pytest

from indexes import Index, IndexConfig
from retrieval import Document
from retrieval.errors import UsageError
from retrieval.passages import (
    passage_id,
    plain_passage_id,
    read_passage,
    read_passages,
    split_passage_id,
)
from retrieval.types import Passage

PASSAGES = {"words": 2}
CONFIG = IndexConfig(passages=PASSAGES)


def split(text):
    words = text.split()
    return [" ".join(words[start : start + 2]) for start in range(0, max(1, len(words)), 2)]


LONG = [
    Document("a#1", "red fish blue fish one fish", "t", {"n": 1}),
    Document("b", "green hill", metadata={"n": 2}),
    Document("c", "", metadata={"n": 3}),
    Document("d", "blue fish " * 30, metadata={"n": 4}),
]


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_a_document_is_found_once_by_its_best_passage(tmp_path, encoder, backend):
    config = IndexConfig(backend=backend, passages=PASSAGES)
    manifest = Index.create(tmp_path / "i", encoder, LONG, config, split=split).manifest
    assert (manifest.documents, manifest.passages) == (3 + 1 + 1 + 30, PASSAGES)
    index = Index.open(tmp_path / "i")
    hits = index.search(encoder.encode_queries(["t blue fish"]), 4)[0]
    assert sorted(hit.doc_id for hit in hits) == ["a#1", "b", "d"]  # c is blank
    assert (hits[0].doc_id, hits[0].text, hits[0].title) == ("a#1", "blue fish", "t")
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert index.search(encoder.encode_queries(["x"]), 9, where="n == 4")[0][0].doc_id == "d"


def test_changes_go_by_document(tmp_path, encoder):
    Index.create(tmp_path / "i", encoder, LONG, CONFIG, split=split)
    more = Document("e", "five six seven eight")
    assert Index.open(tmp_path / "i", encoder).add([LONG[0], more], split=split).unchanged == 1
    shorter = Document("d", "blue fish", metadata={"n": 4})
    change = Index.open(tmp_path / "i", encoder).update([shorter], split=split)
    assert (change.replaced, change.manifest.documents) == (1, 3 + 1 + 1 + 2 + 1)
    change = Index.open(tmp_path / "i").delete(["a#1"])
    assert (change.deleted, change.manifest.documents) == (1, 5)
    hits = Index.open(tmp_path / "i").search(encoder.encode_queries(["seven eight"]), 9)[0]
    assert {hit.doc_id for hit in hits} == {"b", "d", "e"}  # c is blank
    assert hits[0].text == "seven eight"


def test_an_index_of_passages_takes_passages_only(tmp_path, encoder):
    Index.create(tmp_path / "i", encoder, LONG, CONFIG, split=split)
    with pytest.raises(UsageError, match="cut into passages"):
        Index.open(tmp_path / "i", encoder).add(LONG)
    with pytest.raises(UsageError, match="go together"):
        Index.create(tmp_path / "j", encoder, LONG, CONFIG)


@pytest.mark.parametrize("doc_id", ["a", "a#1", "#", "ä #"])
def test_the_id_of_a_passage_leads_back_to_its_document(doc_id):
    assert split_passage_id(passage_id(doc_id, 12)) == (doc_id, 12)


def test_other_ids_are_no_passages():
    with pytest.raises(ValueError, match="not the id of a passage"):
        split_passage_id("a")


class TestPlaces:
    def test_a_hit_says_which_part_of_its_document_it_shows(self, tmp_path, encoder):
        index = Index.create(tmp_path / "i", encoder, LONG, CONFIG, split=split)
        for query, text, number, start in (
            ("t blue fish", "blue fish", 1, 9),
            ("t one fish", "one fish", 2, 19),
        ):
            hit = index.search(query, 1)[0]
            assert (hit.text, hit.passage) == (text, Passage(number, start, start + len(text)))
            assert LONG[0].text[start : hit.passage.stop] == text

    def test_overlapping_passages_have_exact_places(self, tmp_path, encoder):
        class Overlapping:
            def spans(self, text):
                return [(0, 4), (2, 6), (4, 7)]

            def __call__(self, text):
                return [text[start:stop] for start, stop in self.spans(text)]

        rows = list(read_passages([Document("a", "aaaaaaa")], Overlapping()))
        assert [read_passage(row.doc_id, row.text) for row in rows] == [
            Passage(0, 0, 4),
            Passage(1, 2, 6),
            Passage(2, 4, 7),
        ]

    def test_whole_documents_have_none(self, tmp_path, encoder):
        index = Index.create(tmp_path / "i", encoder, LONG)
        assert index.search("blue fish", 1)[0].passage is None

    def test_an_index_of_an_earlier_version_has_numbers_alone(self):
        assert read_passage("a#1#3", "x") == Passage(3)
        assert plain_passage_id(passage_id("a@7", 3, 12)) == passage_id("a@7", 3)
        assert split_passage_id(passage_id("a#1@2", 3, 12)) == ("a#1@2", 3)

    def test_what_an_earlier_version_stored_is_left_alone(self, tmp_path, encoder, monkeypatch):
        with monkeypatch.context() as earlier:
            earlier.setattr("retrieval.passages._places", lambda t, s: ((None, p) for p in s(t)))
            Index.create(tmp_path / "i", encoder, LONG, CONFIG, split=split)
        assert Index.open(tmp_path / "i", encoder).add(LONG, split=split).unchanged == len(LONG)
