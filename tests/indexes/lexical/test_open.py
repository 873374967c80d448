"""An open index stays what it was, whoever changes the folder before it is searched by words."""

from indexes import Index, IndexConfig
from tests.indexes import fakes


def test_words_are_found_after_the_files_were_replaced(tmp_path):
    encoder = fakes.HashingEncoder()
    Index.create(tmp_path / "i", encoder, fakes.make_documents(8), IndexConfig(language="english"))
    opened = Index.open(tmp_path / "i", encoder)
    assert opened.search("title 3", 1)[0].doc_id == "d3"
    before = Index.open(tmp_path / "i", encoder)
    assert before.snapshot.lexical is not None  # opened here, and not yet searched
    writer = Index.open(tmp_path / "i", encoder)
    writer.update(fakes.make_documents(4, "new"))
    writer.delete(["d3"])
    writer.compact()
    assert before.search(["title 3"], 1, mode="lexical")[0][0].doc_id == "d3"
    newest = Index.open(tmp_path / "i", encoder)
    assert "d3" not in {hit.doc_id for hit in newest.search(["title 3"], 9, mode="lexical")[0]}
