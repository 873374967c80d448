"""Lists in metadata come back as lists, whatever stores them."""

import pytest

from indexes import Index
from retrieval import Document
from tests.indexes.fakes import HashingEncoder

DOCUMENTS = [
    Document("a", "mills grind corn", metadata={"tags": ["mill", "corn"], "mixed": [1, "x"]}),
    Document("b", "a pond holds still water", metadata={"tags": [], "mixed": [{"k": [1]}]}),
    Document("c", "water flows down hill", metadata={"tags": ["water", None]}),
]


@pytest.fixture(params=["faiss", "qdrant"])
def index(request, tmp_path):
    from indexes import IndexConfig

    config = IndexConfig(backend=request.param)
    with Index.create(tmp_path / "i", HashingEncoder(), DOCUMENTS, config) as made:
        yield made


def test_a_list_comes_back_as_it_was_given(index):
    found = {hit.doc_id: hit.metadata for hit in index.search("water")}
    assert found == {document.doc_id: document.metadata for document in DOCUMENTS}


def test_lists_of_one_type_can_be_filtered_by_their_elements(index):
    hits = index.search("water", where='tags contains "water"')
    assert [hit.doc_id for hit in hits] == ["c"]
    assert index.count("tags == null") == 1
    assert dict(index.manifest.fields)["mixed"] == ["string"]


def test_a_list_is_the_same_as_the_json_text_that_earlier_versions_stored(index):
    earlier = [
        Document(
            "a", "mills grind corn", metadata={"tags": '["mill", "corn"]', "mixed": '[1, "x"]'}
        )
    ]
    assert index.add(earlier).unchanged == 1
