"""Recall of approximate indexes, measured while they are built."""

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.build import measure_recall
from retrieval import Document
from tests.indexes import fakes


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((600, 24)).astype(np.float32)
    documents = [Document(f"d{n}", str(n)) for n in range(600)]
    Index.create(tmp_path / "i", fakes.TableEncoder(vectors), documents)
    return tmp_path / "i"


def test_an_exact_index_has_no_recall_in_its_manifest(folder):
    assert "recall@10" not in Index.open(folder).manifest.settings
    assert measure_recall(Index.open(folder).snapshot) == 1.0


def test_a_poor_index_says_so_and_a_better_one_too(folder):
    poor = Index.open(folder).reindex(factory="IVF64,PQ4x4").manifest.settings["recall@10"]
    good = Index.open(folder).reindex(factory="HNSW32").manifest.settings["recall@10"]
    assert poor < 0.7 < 0.95 < good <= 1.0
    assert Index.open(folder).manifest.settings["recall_queries"] == 200


def test_recall_is_what_brute_force_says(folder):
    Index.open(folder).reindex(factory="IVF32,Flat")
    index = Index.open(folder)
    vectors = index.snapshot.stored.rows(np.arange(600))
    asked = np.sort(np.random.default_rng(0).choice(600, 200, replace=False))
    hits = index.search(vectors[asked], 11)
    hit_count = 0
    for row, found in zip(asked, hits, strict=True):
        scores = vectors @ vectors[row]
        scores[row] = -np.inf
        best = {f"d{n}" for n in np.argsort(-scores)[:10]}
        hit_count += len(best & {h.doc_id for h in found if h.doc_id != f"d{row}"})
    assert measure_recall(index.snapshot) == pytest.approx(hit_count / 2000)


def test_two_documents_or_one_are_enough(tmp_path, encoder):
    for count in (1, 2, 5):
        documents = [Document(str(n), str(n)) for n in range(count)]
        path = tmp_path / str(count)
        manifest = Index.create(path, encoder, documents, IndexConfig(factory="HNSW8")).manifest
        assert manifest.settings["recall@10"] == 1.0
