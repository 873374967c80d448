"""Exact search gives the same hits, scores and order, whatever stores the vectors."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import Index, IndexConfig
from retrieval import Document, VectorIndex
from retrieval.retriever import Retriever

IN_MEMORY = {"embedded": False, "memory": True}


def unit_vectors(random, count, dimension):
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def pairs(found):
    return [[(hit.rank, hit.doc_id, hit.score) for hit in hits] for hits in found]


@pytest.mark.parametrize("memory", IN_MEMORY.values(), ids=IN_MEMORY)
def test_exact_search_gives_the_hits_scores_and_order_of_faiss(tmp_path, index_of, memory):
    random = np.random.default_rng(3)
    vectors = unit_vectors(random, 300, 24)
    vectors[200:260] = vectors[10]  # sixty-one equal vectors, more than fit into one answer
    ids = [f"{number:03d}" for number in random.permutation(300)]
    queries = np.concatenate([unit_vectors(random, 20, 24), vectors[10:11]])
    reference = index_of(vectors, tmp_path / "f", ids=ids, backend="faiss")
    index = index_of(vectors, tmp_path / "q", ids=ids, memory=memory)
    for k in (1, 7, 40, 300):
        assert pairs(index.search(queries, k)) == pairs(reference.search(queries, k))
    tied = index.search(queries[-1:], 61)[0]
    assert [hit.doc_id for hit in tied] == sorted(ids[row] for row in [10, *range(200, 260)])


# index_of keeps nothing between two calls.
@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 80),
    dimension=st.integers(1, 5),
    queries=st.integers(1, 30),
    k=st.integers(1, 90),
    levels=st.integers(0, 3),
)
def test_exact_search_equals_brute_force_with_ties(
    index_of, backend, seed, count, dimension, queries, k, levels
):
    # Entries from a few whole numbers force ties; levels=0 makes every score 0.
    random = np.random.default_rng(seed)
    vectors = random.integers(-levels, levels + 1, (count, dimension)).astype(np.float32)
    asked = random.integers(-levels, levels + 1, (queries, dimension)).astype(np.float32)
    ids = [str(number) for number in random.permutation(count)]
    with tempfile.TemporaryDirectory() as folder:
        found = index_of(vectors, Path(folder) / "i", ids=ids, backend=backend).search(asked, k)
    for query, hits in zip(asked, found, strict=True):
        best = sorted(zip(-(vectors @ query), ids, strict=True))[:k]
        expected = [(rank, i, -score) for rank, (score, i) in enumerate(best, start=1)]
        assert pairs([hits]) == [expected]


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
@pytest.mark.parametrize("count", [3, 50, 300])
def test_among_equal_scores_at_the_cut_off_the_smallest_ids_win(tmp_path, index_of, backend, count):
    # All vectors are equal, rows run against the order of ids: the last rows must be returned.
    vectors = np.tile(np.array([[1, 0]], dtype=np.float32), (count, 1))
    ids = [f"{number:04d}" for number in reversed(range(count))]
    index = index_of(vectors, tmp_path / "i", ids=ids, backend=backend)
    assert [hit.doc_id for hit in index.search(vectors[:1], 2)[0]] == ["0000", "0001"]
    assert index.search(vectors[:0], 2) == []


def test_hits_carry_title_text_and_metadata_of_documents_with_unicode_ids(
    tmp_path, write_with, encoder
):
    names = ["café", "文書/1", "🦆 duck", "a'b\"c\\d", "x" * 300]
    documents = [
        Document(name, f"text {n}", f"title {n}", {"owner": "Zoë", "year": 2000 + n, "x": None})
        for n, name in enumerate(names)
    ]
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))
    index = Index.open(tmp_path / "i")
    assert isinstance(index, VectorIndex)
    queries = encoder.encode_queries([document.content for document in documents])
    for document, [hit] in zip(documents, index.search(queries, 1), strict=True):
        assert (hit.doc_id, hit.title, hit.text, hit.metadata) == (
            document.doc_id,
            document.title,
            document.text,
            document.metadata,
        )
    [bare] = index.search(queries[:1], 1, with_text=False)[0]
    assert (bare.doc_id, bare.title, bare.text, bare.metadata) == ("café", "", "", {})
    assert Retriever(encoder, index).search(documents[3].content)[0].doc_id == "a'b\"c\\d"


@pytest.mark.parametrize("factory", ["HNSW", "HNSW32,ef200"])
def test_a_graph_finds_nearly_all_neighbours_and_can_be_searched_exactly(
    tmp_path, index_of, factory
):
    random = np.random.default_rng(0)
    vectors = unit_vectors(random, 3000, 16)
    queries = unit_vectors(random, 20, 16)
    index = index_of(vectors, tmp_path / "i", factory=factory)
    exact = index.snapshot.as_exact().search(queries, 10, with_text=False)
    found = index.search(queries, 10, with_text=False)
    truth = [np.argsort(-(vectors @ query))[:10] for query in queries]
    assert [[h.doc_id for h in hits] for hits in exact] == [[f"d{n}" for n in t] for t in truth]
    chosen = [{(n, hit.doc_id) for n, hits in enumerate(f) for hit in hits} for f in (found, exact)]
    assert len(chosen[0] & chosen[1]) / 200 > 0.95
    assert (len(found[0]), index.snapshot.exact) == (10, False)
