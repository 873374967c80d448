"""The GPU path, with copies on the CPU in the place of GPUs: what goes where, and what does not."""

import faiss
import numpy as np
import pytest

from indexes import Index, IndexConfig
from retrieval import Document
from tests.indexes import fakes


@pytest.fixture
def corpus():
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = [Document(f"d{n:03d}", str(n), metadata={"n": n}) for n in range(300)]
    return fakes.TableEncoder(vectors), documents, vectors


@pytest.fixture
def gpus(monkeypatch):
    """One GPU that is none; counts the copies made to it and back."""
    made = {"there": 0, "back": 0, "searches": 0}

    class Copy:
        def __init__(self, index):
            if isinstance(index, faiss.IndexHNSW):
                raise RuntimeError("This type of index is not implemented on the GPU")
            made["there"] += 1
            self.inner = faiss.clone_index(index)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def search(self, *arguments, **named):
            made["searches"] += 1
            return self.inner.search(*arguments, **named)

    def back(copy):
        made["back"] += 1
        return copy.inner

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", Copy, raising=False)
    monkeypatch.setattr(faiss, "index_gpu_to_cpu", back, raising=False)
    return made


@pytest.mark.parametrize("factory", ["Flat", "SQ8"])
def test_a_search_without_a_filter_runs_on_the_gpu_and_one_with_a_filter_does_not(
    tmp_path, corpus, gpus, factory
):
    encoder, documents, vectors = corpus
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(factory=factory))
    index = Index.open(tmp_path / "i")
    gpus["searches"] = 0
    hits = index.search(vectors[:3], 5)
    assert gpus["searches"] >= 1
    before = gpus["searches"]
    filtered = index.search(vectors[:3], 5, where="n >= 0")
    assert (gpus["searches"], filtered) == (before, hits)


def test_more_candidates_than_a_gpu_gives_are_asked_of_the_cpu(tmp_path, gpus):
    vectors = np.random.default_rng(0).standard_normal((2100, 4)).astype(np.float32)
    documents = [Document(f"d{n}", str(n)) for n in range(2100)]
    Index.create(tmp_path / "i", fakes.TableEncoder(vectors), documents)
    index = Index.open(tmp_path / "i")
    gpus["searches"] = 0
    assert len(index.search(vectors[:1], 2090)[0]) == 2090
    assert gpus["searches"] == 0


def test_an_index_is_trained_and_filled_on_the_gpu_and_written_from_the_cpu(tmp_path, corpus, gpus):
    encoder, documents, vectors = corpus
    config = IndexConfig(factory="SQ8")
    Index.create(tmp_path / "gpu", encoder, documents, config)
    assert gpus["back"] == 1
    hits = Index.open(tmp_path / "gpu").search(vectors[:5], 3)
    assert [h[0].doc_id for h in hits] == ["d000", "d001", "d002", "d003", "d004"]


def test_a_kind_that_gpus_lack_stays_on_the_cpu(tmp_path, corpus, gpus):
    encoder, documents, vectors = corpus
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(factory="HNSW16"))
    assert gpus["there"] == 0
    assert Index.open(tmp_path / "i").search(vectors[:1], 1)[0][0].doc_id == "d000"
