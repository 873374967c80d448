"""A search without a filter returns k hits, whatever finds them, if there are k documents."""

from dataclasses import replace

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.backends.qdrant import configured_backend
from indexes.backends.qdrant.options import QdrantOptions
from indexes.snapshot import Snapshot
from retrieval import Document, Fingerprint
from retrieval.errors import IndexCorruptError
from tests.indexes import fakes

FACTORIES = {
    "faiss": [
        "Flat",
        "SQ8",
        "PQ4x4",
        "IVF64,Flat",
        "IVF64,PQ4x4",
        "IVF64,SQ8",
        "PCA8,IVF64,Flat",
        "IVF64,SQ8,RFlat",
        "HNSW4",
        "HNSW32",
        "HNSW4_SQ8",
        "NSG4",
    ],
    "qdrant": ["Flat", "HNSW"],
}
KINDS = [(backend, factory) for backend, found in FACTORIES.items() for factory in found]


@pytest.fixture(scope="module")
def vectors():
    """400 unit vectors in 40 tight clusters, between which a graph has few links."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.standard_normal((40, 16)), 10, axis=0)
    rows = centres + 0.02 * random.standard_normal((400, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vectors):
    path = tmp_path_factory.mktemp("complete") / "flat"
    documents = [Document(f"d{number}", str(number)) for number in range(400)]
    Index.create(path, fakes.TableEncoder(vectors), documents)
    return path


def wrap(snapshot):
    """An index as it was opened, but with an engine that knows every second row at most."""
    whole = snapshot.engine.candidates

    def half(queries, wanted, *, exact, selection):
        found = whole(queries, wanted, exact=exact, selection=selection)
        return [(scores[rows % 2 == 0], rows[rows % 2 == 0]) for scores, rows in found]

    snapshot.engine = replace(snapshot.engine, candidates=half, exact=False)
    return snapshot


@pytest.mark.parametrize(("backend", "factory"), KINDS)
def test_k_hits_come_back_of_every_kind_of_index(folder, tmp_path, vectors, backend, factory):
    if backend == "qdrant":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    index = Index.open(folder).reindex(out=tmp_path / "i", backend=backend, factory=factory)
    for k in (10, 100, 399, 400):
        for hits in index.search(vectors[::80], k, with_text=False):
            assert len({hit.doc_id for hit in hits}) == len(hits) == k
    assert [len(hits) for hits in index.search(vectors[:2], 1000)] == [400, 400]


def test_an_engine_in_memory_returns_k_hits(folder, tmp_path, vectors):
    store = configured_backend(QdrantOptions(memory=True))
    index = Index.open(folder).reindex(out=tmp_path / "i", backend="qdrant", store=store)
    assert [len(hits) for hits in index.search(vectors[:2], 400)] == [400, 400]


def test_lists_are_searched_wider_before_all_vectors_are_compared(
    folder, tmp_path, vectors, monkeypatch
):
    index = Index.open(folder).reindex(out=tmp_path / "i", factory="IVF64,Flat")
    monkeypatch.setattr("indexes.snapshot.ExactScan", lambda stored: None)  # calling it would fail
    assert [len(hits) for hits in index.search(vectors[:5], 100)] == [100] * 5


def test_what_an_engine_lacks_is_found_by_comparing_all_vectors(folder, vectors):
    snapshot = wrap(Snapshot.open(folder))
    few, many = snapshot.search(vectors[:1], 10), snapshot.search(vectors[:1], 300)
    exact = Snapshot.open(folder).search(vectors[:1], 300)
    assert len(few[0]) == 10
    assert many == exact


@pytest.mark.parametrize("factory", ["IVF64,Flat", "HNSW4"])
def test_passages_of_k_documents_come_back(tmp_path, vectors, factory):
    def split(text):
        return [str(number) for number in range(10 * int(text), 10 * int(text) + 10)]

    documents = [Document(f"d{number}", str(number)) for number in range(40)]
    config = IndexConfig(factory=factory, passages={"numbers": 10})
    index = Index.create(
        tmp_path / "i", fakes.TableEncoder(vectors), documents, config, split=split
    )
    assert len(index) == 400
    for k in (5, 39, 40):  # a document is a cluster here, so that all ten best are of one
        for hits in index.search(vectors[::80], k):
            assert len({hit.doc_id for hit in hits}) == len(hits) == k


class Unit(fakes.TableEncoder):
    """An encoder that says that its vectors have length 1."""

    def __init__(self, vectors):
        super().__init__(vectors)
        self.fingerprint = Fingerprint("unit", {"normalize": True})


def test_a_score_above_1_of_unit_vectors_is_damage(tmp_path, vectors):
    documents = [Document(f"d{number}", str(number)) for number in range(400)]
    longer = vectors.copy()
    longer[123] *= 1.01
    half = IndexConfig(vector_type="float16")
    index = Index.create(tmp_path / "i", Unit(longer), documents, half)
    assert index.search(vectors[:1], 3)[0][0].score == pytest.approx(1, abs=1e-3)
    assert index.search(7 * vectors[:1], 3)[0][0].score == pytest.approx(7, abs=1e-2)
    with pytest.raises(IndexCorruptError, match=r"vectors/00000\.npy is damaged: vector 123 "):
        index.search(vectors[123:124], 3)
    free = Index.create(tmp_path / "free", fakes.TableEncoder(longer), documents)
    assert free.search(vectors[123:124], 1)[0][0].score == pytest.approx(1.01, abs=1e-5)


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF64,Flat"])
def test_leaving_out_what_is_out_of_reach_changes_no_hit_and_saves_products(
    tmp_path, vectors, factory, monkeypatch
):
    rows = np.repeat(vectors[::4], 4, axis=0)  # four of each, so that the kth place is shared
    documents = [Document(f"d{number}", str(number)) for number in range(400)]
    index = Index.create(tmp_path / "i", Unit(rows), documents, IndexConfig(factory=factory))
    snapshot, read = index.snapshot, []
    whole = snapshot.stored.rows
    monkeypatch.setattr(
        snapshot.stored, "rows", lambda wanted: read.append(wanted.size) or whole(wanted)
    )

    def search():
        read.clear()
        found = [index.search(rows[::40], k) for k in (1, 2, 10, 50)]
        return [*found, index.search(rows[:1], 10)], sum(read)

    assert snapshot.engine.float_scores
    found, computed = search()
    snapshot.engine = replace(snapshot.engine, float_scores=False)
    expected, all_computed = search()
    assert found == expected
    assert computed < all_computed
