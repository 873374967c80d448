"""Documents without a word are kept, and no search by meaning returns them."""

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.storage.document_writer import DocumentWriter
from indexes.storage.documents import DocumentStore
from retrieval import Document
from tests.indexes import fakes

SENTENCES = [Document(f"s{n}", f"sentence number {n}", metadata={"n": n}) for n in range(16)]
BLANKS = [
    Document("empty", "", metadata={"n": 100}),
    Document("blanks", " \t\n\u3000", metadata={"n": 101}),
    Document("dash", "-", metadata={"n": 102}),
]
KINDS = [
    ("faiss", "Flat"),
    ("faiss", "HNSW8"),
    ("faiss", "IVF4,Flat"),
    ("qdrant", "Flat"),
    ("qdrant", "HNSW"),
]


class Attracted(fakes.HashingEncoder):
    """Gives every query the vector of blank documents, which models place near everything."""

    def encode_documents(self, texts):
        rows = super().encode_documents(texts)
        rows[[not any(map(str.isalnum, text)) for text in texts]] = np.eye(self.dimension)[0]
        return rows

    def encode_queries(self, texts):
        return np.eye(1, self.dimension, dtype=np.float32).repeat(len(texts), axis=0)


def found(index, k=19, **options):
    return {hit.doc_id for hit in index.search("who wrote this poem", k, mode="dense", **options)}


def ids(documents):
    return {document.doc_id for document in documents}


@pytest.mark.parametrize("text", ["", " ", "-", "?!", "...", "___", "\u0301", "+ = %"])
def test_nothing_but_marks_and_blanks_is_blank(tmp_path, text):
    with DocumentWriter(tmp_path / "0.arrow") as writer:
        writer.extend([Document("a", text), Document("b", text, title="t"), Document("c", text)])
    assert DocumentStore(fakes.stored_in(tmp_path)).find_blank().tolist() == [0, 2]
    assert DocumentStore(fakes.stored_in(tmp_path)).find_blank(1).tolist() == [2]


@pytest.mark.parametrize("text", ["a", "7", "é", "ß!", "ไ", "中", "☃", "😀", "½", "ⅷ"])
def test_one_letter_digit_or_pictograph_says_something(tmp_path, text):
    with DocumentWriter(tmp_path / "0.arrow") as writer:
        writer.extend([Document("a", f"- {text} -")])
    assert DocumentStore(fakes.stored_in(tmp_path)).find_blank().tolist() == []


@pytest.mark.parametrize(("backend", "factory"), KINDS)
def test_no_blank_document_is_found_by_meaning(tmp_path, backend, factory):
    if backend == "qdrant":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    config = IndexConfig(backend=backend, factory=factory)
    index = Index.create(tmp_path / "i", Attracted(), [*BLANKS, *SENTENCES], config)
    assert (len(index), index.manifest.blank, index.manifest.findable) == (19, 3, 16)
    for k in (1, 16, 19):
        assert found(index, k) <= ids(SENTENCES)
    assert found(index) == ids(SENTENCES)
    assert found(index, where="n >= 10") == {f"s{n}" for n in range(10, 16)}
    assert found(index, where="n >= 100") == set()
    assert index.count("n >= 100") == 3
    index.check()


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_blank_documents_come_and_go_like_others(tmp_path, backend):
    if backend == "qdrant":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    keep = IndexConfig(compact_share=1.0)
    index = Index.create(
        tmp_path / "i", Attracted(), [*BLANKS[:2], *SENTENCES], IndexConfig(backend=backend)
    )
    index.add([BLANKS[2], Document("x", "words")], keep)
    assert (index.manifest.blank, found(index)) == (3, ids(SENTENCES) | {"x"})
    assert index.add(BLANKS, keep).unchanged == 3
    index.delete(["empty"], keep)
    assert (len(index), index.manifest.blank) == (19, 2)
    index.update([Document("blanks", "no longer"), Document("s3", " ")], keep)
    assert index.manifest.blank == 2
    assert found(index, 30) == ids(SENTENCES) - {"s3"} | {"x", "blanks"}
    index.compact()
    assert (len(index), index.manifest.blank) == (19, 2)
    assert found(index, 30) == ids(SENTENCES) - {"s3"} | {"x", "blanks"}
    index.reindex(factory="HNSW") if backend == "qdrant" else index.reindex(factory="HNSW8")
    assert (index.manifest.blank, found(index)) == (2, ids(SENTENCES) - {"s3"} | {"x", "blanks"})
    index.check()


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_an_index_of_blank_documents_alone_finds_nothing(tmp_path, backend):
    if backend == "qdrant":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    index = Index.create(tmp_path / "i", Attracted(), BLANKS, IndexConfig(backend=backend))
    assert found(index) == set()
    assert (len(index), index.manifest.findable) == (3, 0)


def test_a_blank_passage_is_not_found_but_its_document_is(tmp_path):
    documents = [Document("a", "one|-|two"), Document("b", "-|.")]
    config = IndexConfig(passages={"bars": 1})
    index = Index.create(
        tmp_path / "i", Attracted(), documents, config, split=lambda text: text.split("|")
    )
    assert (len(index), index.manifest.blank) == (5, 3)
    assert [hit.doc_id for hit in index.search("q", 5, mode="dense")] == ["a"]
    assert index.delete(["b"]).deleted == 1
