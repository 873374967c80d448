"""Searching with a filter: the best documents among those that match, on every backend."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import Index, IndexConfig, snapshot
from indexes.backends.qdrant import QdrantOptions, configured_backend
from retrieval import Document
from retrieval.errors import UnknownNameError, UsageError
from retrieval.filters import evaluate_filter, infer_schema, parse_filter
from tests.indexes import fakes

KINDS = {
    "flat": ("faiss", "Flat", None),
    "hnsw": ("faiss", "HNSW16", None),
    "ivf": ("faiss", "IVF4,Flat", None),
    "sq8": ("faiss", "SQ8", None),
    "pca": ("faiss", "PCA6,Flat", None),
    "refine": ("faiss", "SQ8,RFlat", None),
    "edge": ("qdrant", "Flat", None),
    "edge-hnsw": ("qdrant", "HNSW", None),
    "memory": ("qdrant", "Flat", QdrantOptions(memory=True)),
}
FILTERS = [
    "year >= 2020",
    'lang == "en" and year < 2015',
    "not lang in ['en', 'de']",
    'tags contains "b"',
    "score == null or year == 2001",
    "flag == true",
    'day >= "2021-01-01"',
    "year == 1",
]


def make_corpus(count, dimension, seed=0):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = []
    for number in range(count):
        row = {
            "year": int(random.integers(2000, 2026)),
            "lang": str(random.choice(["en", "de", "fr"])),
            "tags": str(random.choice(['["a"]', '["a", "b"]', "[]"])),
            "flag": bool(random.integers(0, 2)),
            "day": f"20{random.integers(10, 26)}-0{random.integers(1, 10)}-01",
        }
        if number % 3:
            row["score"] = float(random.random())
        rows.append(row)
    documents = [Document(f"d{n:04d}", str(n), metadata=row) for n, row in enumerate(rows)]
    return vectors, documents, rows


def expected_ids(vectors, documents, allowed, query, k):
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    best = sorted((-scores[row], documents[row].doc_id) for row in allowed)
    return [doc_id for _, doc_id in best[:k]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """400 documents, and an index of them of each kind."""
    vectors, documents, rows = make_corpus(400, 8)
    encoder = fakes.TableEncoder(vectors)
    folder = tmp_path_factory.mktemp("filtered")
    indexes = {}
    for name, (backend, factory, options) in KINDS.items():
        store = configured_backend(options) if options else None
        config = IndexConfig(backend=backend, factory=factory)
        Index.create(folder / name, encoder, documents, config, store=store)
        indexes[name] = Index.open(folder / name)
    return vectors, documents, rows, indexes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine_only", [False, True])
def test_every_kind_of_index_finds_k_of_the_matching_documents(
    corpus, monkeypatch, kind, engine_only
):
    if engine_only:  # otherwise 400 rows are few enough to compare all of them
        monkeypatch.setattr(snapshot, "SMALL_SELECTION", 0)
    vectors, documents, rows, indexes = corpus
    schema = infer_schema(rows)
    queries = make_corpus(5, 8, seed=1)[0]
    for text in FILTERS:
        holds = evaluate_filter(parse_filter(text), schema, rows)
        allowed = [row for row, keep in enumerate(holds) if keep]
        found = indexes[kind].search(queries, 10, where=text)
        for query, hits in zip(queries, found, strict=True):
            ids = [hit.doc_id for hit in hits]
            best = expected_ids(vectors, documents, allowed, query, 10)
            assert len(ids) == min(10, len(allowed))
            assert set(ids) <= {documents[row].doc_id for row in allowed}
            if indexes[kind].snapshot.exact or not engine_only:
                assert ids == best, text
            elif best:
                assert len(set(ids) & set(best)) >= len(best) // 2


# The fixture keeps nothing between two examples.
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    k=st.integers(1, 50),
    texts=st.lists(st.sampled_from(FILTERS), min_size=1, max_size=3),
    joined=st.sampled_from([" and ", " or "]),
)
@pytest.mark.parametrize("kind", ["flat", "hnsw", "edge", "memory"])
def test_filtered_search_equals_plain_python(kind, seed, count, k, texts, joined):
    vectors, documents, rows = make_corpus(count, 3, seed)
    where = joined.join(f"({text})" for text in texts)
    backend, factory, options = KINDS[kind]
    store = configured_backend(options) if options else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "i"
        config = IndexConfig(backend=backend, factory=factory)
        Index.create(path, fakes.TableEncoder(vectors), documents, config, store=store)
        schema = infer_schema(rows)
        try:
            holds = list(evaluate_filter(parse_filter(where), schema, rows))
        except UnknownNameError:  # no document of this draw has a score
            with pytest.raises(UnknownNameError):
                Index.open(path).search(vectors[:1], k, where=where)
            return
        allowed = [row for row, keep in enumerate(holds) if keep]
        found = Index.open(path).search(vectors[:2], k, where=where)
        for query, hits in zip(vectors[:2], found, strict=True):
            assert [h.doc_id for h in hits] == expected_ids(vectors, documents, allowed, query, k)


@pytest.mark.parametrize("kind", ["flat", "edge"])
def test_filters_that_do_not_fit_the_index_name_what_is_there(corpus, kind):
    index = corpus[3][kind]
    query = corpus[0][:1]
    with pytest.raises(UnknownNameError, match=r"'yaer'.*year"):
        index.search(query, 1, where="yaer > 1")
    with pytest.raises(UsageError, match="year"):
        index.search(query, 1, where='year > "new"')
    with pytest.raises(UsageError, match="column"):
        index.search(query, 1, where="year >")


def test_documents_without_fields_can_be_asked_for_nothing(tmp_path, encoder):
    Index.create(tmp_path / "i", encoder, [Document("a", "x"), Document("b", "y")])
    assert not (tmp_path / "i" / "fields.arrow").exists()
    with pytest.raises(UsageError, match="have no fields"):
        Index.open(tmp_path / "i").search(encoder.encode_queries(["x"]), 1, where="a == 1")


def test_a_field_that_is_null_everywhere_can_be_asked_for_null(tmp_path, encoder):
    documents = [Document("a", "x", metadata={"n": None}), Document("b", "y")]
    Index.create(tmp_path / "i", encoder, documents)
    index = Index.open(tmp_path / "i")
    query = encoder.encode_queries(["x"])
    assert len(index.search(query, 5, where="n == null")[0]) == 2
    assert index.search(query, 5, where="n != null") == [[]]


def test_a_reindexed_folder_keeps_its_fields(corpus, tmp_path):
    vectors, documents, _, indexes = corpus
    Index.create(tmp_path / "i", fakes.TableEncoder(vectors), documents)
    Index.open(tmp_path / "i").reindex(backend="qdrant")
    found = Index.open(tmp_path / "i").search(vectors[:3], 5, where="year >= 2020")
    assert found == indexes["flat"].search(vectors[:3], 5, where="year >= 2020")
