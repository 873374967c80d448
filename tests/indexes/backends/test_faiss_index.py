import sys
from pathlib import Path

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.backends.faiss import INDEX_NAME, _write_flat, load_faiss
from indexes.storage.vectors import Shards, VectorWriter
from retrieval import Document, VectorIndex
from retrieval.errors import MissingDependencyError, UsageError, VectorError
from retrieval.retriever import Retriever
from tests.indexes import fakes

FACTORIES = [
    "Flat",
    "HNSW32",
    "IVF4,Flat",
    "SQ8",
    "PQ4x4",
    "PCA8,Flat",
    "IVF4,SQ8",
    "PCA8,IVF4,PQ4x4",
]


def index_of(vectors, folder, *, ids=None, factory="Flat"):
    """Write an index whose document number n has the n-th vector."""
    ids = ids or [f"d{n}" for n in range(len(vectors))]
    documents = [Document(doc_id, str(n)) for n, doc_id in enumerate(ids)]
    Index.create(folder, fakes.TableEncoder(vectors), documents, IndexConfig(factory=factory))
    return Index.open(folder)


def pairs(hits):
    return [(hit.doc_id, hit.score) for hit in hits]


def test_search_orders_by_inner_product_and_returns_the_documents(tmp_path):
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    index = index_of(vectors, tmp_path / "i", ids=["east", "north", "between"])
    assert isinstance(index, VectorIndex)
    assert (len(index), index.dimension) == (3, 2)
    hits = index.search(np.array([[0, 1]], dtype=np.float32), 2)[0]
    # (0, 1) against (0, 1) is 1; against (0.6, 0.8) it is 0.8.
    assert [(hit.rank, hit.doc_id, hit.text) for hit in hits] == [
        (1, "north", "1"),
        (2, "between", "2"),
    ]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.8])


def test_hits_carry_title_text_and_metadata_only_when_asked(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    index = Index.open(tmp_path / "i")
    query = encoder.encode_queries([documents[7].content])
    [hit] = index.search(query, 1)[0]
    assert (hit.doc_id, hit.title, hit.text, hit.metadata) == (
        "d7",
        documents[7].title,
        documents[7].text,
        {"n": 7},
    )
    [bare] = index.search(query, 1, with_text=False)[0]
    assert (bare.doc_id, bare.title, bare.text, bare.metadata) == ("d7", "", "", {})


def test_a_retriever_finds_a_document_by_its_own_text(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    assert (
        Retriever(encoder, Index.open(tmp_path / "i")).search(documents[3].content)[0].doc_id
        == "d3"
    )


def test_k_may_exceed_the_number_of_documents(tmp_path):
    index = index_of(np.eye(3, dtype=np.float32), tmp_path / "i")
    hits = index.search(np.eye(3, dtype=np.float32)[:1], 100)[0]
    assert pairs(hits) == [("d0", 1.0), ("d1", 0.0), ("d2", 0.0)]


def test_no_query_gives_no_list(tmp_path):
    index = index_of(np.eye(3, dtype=np.float32), tmp_path / "i")
    assert index.search(np.empty((0, 3), dtype=np.float32), 5) == []


def test_scores_and_order_do_not_depend_on_how_many_queries_are_asked_at_once(tmp_path):
    # Float32 sums differ in the last digit between faiss' kernels for one and for many queries.
    random = np.random.default_rng(1)
    vectors = random.standard_normal((40, 96)).astype(np.float32)
    index = index_of(np.concatenate([vectors] * 5), tmp_path / "i")
    asked = random.standard_normal((64, 96)).astype(np.float32)
    together = index.search(asked, 12)
    assert together == [index.search(asked[n : n + 1], 12)[0] for n in range(64)]
    for hits in together:
        # Each vector is there five times: scores come in blocks of five, ids in order.
        assert [hit.score for hit in hits[:5]] == [hits[0].score] * 5
        assert [h.doc_id for h in hits[:5]] == sorted(h.doc_id for h in hits[:5])


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.zeros((1, 3), dtype=np.float32), r"queries: the vectors have shape \(1, 3\)"),
        (np.zeros(4, dtype=np.float32), "queries"),
        (np.zeros((1, 4)), "queries"),
        (np.array([[0, np.nan, 0, 0]], dtype=np.float32), "queries.*row 0 holds NaN"),
        (np.array([[0, np.inf, 0, 0]], dtype=np.float32), "queries"),
        ([[0.0, 0.0, 0.0, 0.0]], "queries"),
    ],
    ids=["dimension", "one row", "float64", "nan", "infinity", "list"],
)
def test_queries_that_are_not_finite_float32_of_the_right_shape_are_refused(
    tmp_path, queries, message
):
    index = index_of(np.eye(4, dtype=np.float32), tmp_path / "i")
    with pytest.raises(VectorError, match=message):
        index.search(queries, 1)


def test_k_below_one_is_refused(tmp_path):
    index = index_of(np.eye(4, dtype=np.float32), tmp_path / "i")
    with pytest.raises(UsageError, match="k is 0"):
        index.search(np.eye(4, dtype=np.float32), 0)


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_kind_of_index_finds_most_documents_by_their_own_vectors(tmp_path, factory):
    encoder = fakes.HashingEncoder()
    documents = fakes.make_documents(200)
    manifest = Index.create(
        tmp_path / "i", encoder, documents, IndexConfig(factory=factory)
    ).manifest
    assert manifest.factory == factory
    index = Index.open(tmp_path / "i")
    queries = encoder.encode_queries([document.content for document in documents])
    found = index.search(queries, 5)
    assert all(len({hit.doc_id for hit in hits}) == 5 for hits in found)
    assert all(hits == sorted(hits, key=lambda h: (-h.score, h.doc_id)) for hits in found)
    hit = [d.doc_id in {h.doc_id for h in hits} for d, hits in zip(documents, found, strict=True)]
    assert np.mean(hit) > (0.99 if "PQ" not in factory and "PCA" not in factory else 0.5)


def test_training_and_search_breadth_are_kept_in_the_manifest(tmp_path):
    documents = fakes.make_documents(200)
    manifest = Index.create(
        tmp_path / "i", fakes.HashingEncoder(), documents, IndexConfig(factory="IVF16,Flat")
    ).manifest
    recall = manifest.settings["recall@10"]
    assert 0.8 < recall < 1.0  # 8 of 16 lists are searched
    assert manifest.settings == {
        "training_rows": 200,
        "training_seed": 0,
        "nprobe": 8,
        "recall@10": recall,
        "recall_queries": 200,
    }


def test_more_lists_are_visited_where_an_approximate_index_has_too_few_rows(tmp_path):
    vectors = np.repeat(np.eye(32, dtype=np.float32), 2, axis=0)
    index = index_of(vectors, tmp_path / "i", factory="IVF32,Flat")
    hits = index.search(vectors[:1], 64)[0]  # 8 of the 32 lists are visited
    assert len(hits) == 64
    assert [hit.doc_id for hit in hits[:2]] == ["d0", "d1"]


@pytest.mark.parametrize(
    "factory", ["", "Flt", "IVF0,Flat", "PQ7", "LSH", "IDMap,Flat", "Flat,", "IVF,Flat"]
)
def test_a_bad_factory_string_is_refused_in_one_line_before_anything_is_encoded(
    tmp_path, encoder, documents, factory
):
    with pytest.raises(UsageError, match="Examples that work: Flat, HNSW32, IVF256,Flat, SQ8") as e:
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(factory=factory))
    assert "\n" not in str(e.value)
    assert ".cpp" not in str(e.value)
    assert encoder.calls == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("factory", ["IVF256,Flat", "PQ4", "NSG32"])
def test_too_few_documents_to_build_are_refused_in_one_line(tmp_path, encoder, documents, factory):
    with pytest.raises(UsageError, match=r"from 25 documents: .*Flat, HNSW32") as caught:
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(factory=factory))
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)
    # With another factory the same documents need not be embedded again.
    calls = encoder.calls
    Index.create(tmp_path / "i", encoder, documents)
    assert encoder.calls == calls


def test_a_streamed_flat_file_has_the_bytes_that_faiss_writes(tmp_path):
    faiss = load_faiss()
    vectors = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    (tmp_path / "v").mkdir()
    for number in range(3):
        with VectorWriter(tmp_path / "v" / f"{number:05d}.npy", 6) as writer:
            writer.append(vectors[10 * number : 10 * number + 10])
    index = faiss.index_factory(6, "Flat", faiss.METRIC_INNER_PRODUCT)
    assert _write_flat(index, Shards(fakes.stored_in(tmp_path / "v"), 6), tmp_path / "streamed")
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "whole"))
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF4,Flat", "SQ8"])
def test_the_index_file_is_memory_mapped(tmp_path, factory):
    folder = tmp_path / "i"
    Index.create(
        folder, fakes.HashingEncoder(), fakes.make_documents(200), IndexConfig(factory=factory)
    )
    index = Index.open(folder)
    mapped = Path("/proc/self/maps").read_text()
    assert str(folder / INDEX_NAME) in mapped
    assert str(folder / "documents" / "00000.arrow") in mapped
    assert len(index) == 200


def test_a_missing_faiss_names_both_extras(tmp_path, encoder, documents, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"millpond\[cpu\].*millpond\[gpu\]"):
        Index.create(tmp_path / "i", encoder, documents)
    assert encoder.calls == 0


def test_a_deletion_is_done_although_too_few_documents_are_left_to_train(tmp_path):
    encoder, path = fakes.HashingEncoder(), tmp_path / "i"
    documents = fakes.make_documents(60)
    Index.create(path, encoder, documents, IndexConfig(factory="IVF16,Flat"))
    change = Index.open(path).delete([f"d{number}" for number in range(50)])
    assert (change.deleted, change.compacted) == (50, False)
    assert "FAISS cannot build 'IVF16,Flat' from 10 documents" in change.postponed
    assert (change.manifest.documents, change.manifest.rows) == (10, 60)
    assert Index.open(path).check() == change.manifest
    assert not (path / ".building").exists()
    # Later changes are not in its way, and the rows are cleared away once there are enough.
    added = Index.open(path, encoder).add(documents[:1])
    assert (added.added, added.compacted) == (1, False)
    assert added.postponed
    updated = Index.open(path, encoder).update(documents[:30], delete_missing=True)
    assert (updated.added, updated.unchanged, updated.deleted) == (29, 1, 10)
    assert updated.compacted
    assert not updated.postponed
    assert (updated.manifest.documents, updated.manifest.rows) == (30, 30)
    Index.open(path).check()


@pytest.mark.parametrize(
    "factory",
    [
        "HNSW0",
        "HNSW1",
        "HNSW1_SQ8",
        "IVF4_HNSW1,Flat",
        "NSG0",
        "NSG1",
        "PQ4x0",
        "RQ0x8",
        "RR0,Flat",
    ],
)
def test_a_number_that_crashes_faiss_is_refused_before_anything_is_embedded(tmp_path, factory):
    encoder = fakes.HashingEncoder()
    with pytest.raises(UsageError, match=f"FAISS cannot make the index '{factory}'.* needs "):
        Index.create(tmp_path / "i", encoder, fakes.make_documents(3), IndexConfig(factory=factory))
    assert encoder.calls == 0
    assert not (tmp_path / "i").exists()
