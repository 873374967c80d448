"""The real base and real corpora, skipped with a reason where they cannot be had."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from embedder import DEFAULT_MODEL, Embedder
from embedder.light import load_light_encoder
from indexes import Index
from retrieval import read_corpus, read_queries
from retrieval.errors import DownloadError, MissingDependencyError
from retrieval.retriever import Retriever

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "beir"
# Documents and queries as the sets' own publishers count them.
REAL_SETS = {"scifact": (5183, 1109), "cranfield": (1400, 225), "xquad-en": (240, 1190)}


def load(model):
    try:
        return Embedder.load(model, device="cpu", notify=print)
    except (DownloadError, MissingDependencyError) as error:
        pytest.skip(f"the base cannot be fetched: {error}")


@pytest.mark.base
@pytest.mark.network
def test_the_default_model_finds_real_documents_by_their_own_text(tmp_path):
    embedder = load(DEFAULT_MODEL)
    documents = list(islice(read_corpus("python-stdlib"), 0, 400, 10))
    Index.create(tmp_path / "index", embedder, documents)
    retriever = Retriever(embedder, Index.open(tmp_path / "index"))
    for document in documents[::8]:
        hits = retriever.search(document.content, k=2)
        assert hits[0].doc_id == document.doc_id
        assert hits[0].score == pytest.approx(1.0, abs=1e-5)
        assert hits[0].score > hits[1].score


@pytest.mark.base
@pytest.mark.network
def test_the_default_model_puts_meaning_before_words():
    embedder = load(DEFAULT_MODEL)
    assert embedder.trained
    queries = ["How do I delete a folder?", "a drug against high blood pressure"]
    documents = [
        "Remove a directory and all files in it.",
        "How do I fold a paper crane?",
        "Lisinopril lowers hypertension in adults.",
    ]
    scores = embedder.encode_queries(queries) @ embedder.encode_documents(documents).T
    assert scores[0].argmax() == 0
    assert scores[1].argmax() == 2


@pytest.mark.base
@pytest.mark.network
def test_one_text_is_searched_for_without_torch_and_finds_the_same(tmp_path):
    embedder = load(f"{DEFAULT_MODEL},max_tokens=32")
    documents = list(islice(read_corpus("python-stdlib"), 0, 300, 10))
    Index.create(tmp_path / "index", embedder, documents)
    light = load_light_encoder(f"{DEFAULT_MODEL},max_tokens=32")
    assert light is not None
    assert light.fingerprint == embedder.fingerprint
    texts = [document.content for document in documents]
    expected = embedder.encode_documents(texts)
    np.testing.assert_allclose(light.encode_documents(texts), expected, atol=1e-5)
    code = (
        "import sys; from cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'"
    )
    arguments = ["search", str(tmp_path / "index"), documents[7].content, "-k", "1", "--json"]
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    assert json.loads(found.stdout)["doc_id"] == documents[7].doc_id


@pytest.mark.base
@pytest.mark.network
@pytest.mark.parametrize("variant", ["model1", "model5", "weighted_mean+bidirectional"])
def test_real_texts_embed_the_same_alone_and_in_a_batch(variant):
    embedder = load(f"smollm2-135m:{variant},base_layers=6,max_tokens=64")
    texts = [document.content for document in islice(read_corpus("python-stdlib"), 500, 506)]
    together = embedder.encode_documents([*texts, ""])
    alone = np.concatenate([embedder.encode_documents([text]) for text in [*texts, ""]])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", REAL_SETS)
def test_real_beir_folders_are_read_whole(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    documents, queries = REAL_SETS[name]
    assert sum(1 for _ in read_corpus(folder)) == documents
    assert sum(1 for _ in read_queries(folder)) == queries
