"""A forked child that would wait for threads it does not have is told so."""

import multiprocessing
import os
import select
import signal

import numpy as np
import pytest
import torch

from benchmarks.lab.layouts import encoders
from embedder import Embedder, load_encoder
from indexes import Index, IndexConfig
from retrieval import Document, errors
from retrieval.errors import UsageError
from retrieval.retriever import Retriever
from tests.embedder import stand_ins

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
SAFETY_SECONDS = 60
TEXTS = ["a mill grinds grain", "a pond holds water"]


def in_fork(work):
    """Return what ``work`` returns or raises in a forked child, as text; "hung" if it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], SAFETY_SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        return os.read(read, 65_536).decode() if ready else "hung"
    finally:
        os.waitpid(child, 0)
        os.close(read)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Compute with a pool of threads, and forget afterwards what was computed."""
    monkeypatch.setattr(errors, "_STATE", {"computed": False, "orphaned": False})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fork") / "llama"
    stand_ins.write_model_folder(folder)
    return Embedder.load(f"{folder}:mean+causal", device="cpu")


def refuses(said):
    return said.startswith("UsageError: torch cannot compute") and 'get_context("spawn")' in said


def test_a_forked_child_is_told_to_spawn(embedder):
    embedder.encode_documents(TEXTS)
    ids = embedder.tokenize(TEXTS)
    assert refuses(in_fork(lambda: embedder.encode_documents(TEXTS)))
    assert refuses(in_fork(lambda: embedder.encode_queries(TEXTS[:1])))
    assert refuses(in_fork(lambda: embedder.encode_tokens(ids)))
    assert refuses(in_fork(lambda: Embedder.load(embedder.name, device="cpu")))
    assert refuses(in_fork(lambda: in_fork(lambda: embedder.encode_documents(TEXTS))))


def test_the_parent_goes_on(embedder):
    before = embedder.encode_documents(TEXTS)
    in_fork(lambda: embedder.encode_documents(TEXTS))
    np.testing.assert_array_equal(embedder.encode_documents(TEXTS), before)


def test_one_thread_needs_no_pool_and_computes_in_a_child(embedder):
    expected = embedder.encode_documents(TEXTS)

    def alone():
        torch.set_num_threads(1)
        return np.abs(embedder.encode_documents(TEXTS) - expected).max() < 1e-5

    assert in_fork(alone) == "True"


def test_a_child_forked_before_anything_computed_may_compute(embedder):
    assert not errors._STATE["computed"]
    assert in_fork(lambda: errors.check_fork("torch", 2)) == "None"
    embedder.encode_documents(TEXTS)
    assert errors._STATE["computed"]


INHERITED = []
"""What a forked worker finds where its parent left it, as a global of a user's script is."""


def _encode(texts):
    return INHERITED[0].encode_documents(texts).shape


def test_a_pool_of_forked_workers_is_told_to_spawn(embedder):
    embedder.encode_documents(TEXTS)
    INHERITED[:] = [embedder]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        waiting = pool.apply_async(_encode, (TEXTS,))
        with pytest.raises(UsageError, match="Start processes by spawn"):
            waiting.get(SAFETY_SECONDS)


def test_an_encoder_of_sentence_transformers_is_told_too(tmp_path):
    folder = encoders.write_layout("bge-small", tmp_path / "bge")
    encoder = load_encoder(str(folder), device="cpu")
    assert refuses(in_fork(lambda: encoder.encode_documents(TEXTS)))
    assert refuses(in_fork(lambda: load_encoder(str(folder), device="cpu")))


def test_search_in_a_forked_child_is_refused_by_model_and_index(embedder, tmp_path):
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    index = Index.create(tmp_path / "index", embedder, documents, IndexConfig())
    with Retriever(embedder, index) as retriever:
        retriever.search("mill", 1)
        query = embedder.encode_queries(["mill"])
        assert refuses(in_fork(lambda: retriever.search("mill", 1)))
        said = in_fork(lambda: index.search(query, 1))
        assert said.startswith("UsageError: FAISS cannot compute in this process")
