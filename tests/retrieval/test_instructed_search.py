"""An index is searched with another instruction than it was made with, only on request."""

import numpy as np
import pytest

from benchmarks.lab.layouts import decoders
from embedder import load_encoder
from embedder.serving.served import ServedIndex, serve_embedder
from indexes import Index, IndexConfig
from retrieval import Document, Fingerprint, check_fingerprints
from retrieval.errors import FingerprintError, UsageError
from retrieval.retriever import Retriever

TEXTS = ["the mill grinds corn", "the pond holds water", "a miller takes his share"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a model with instructions, and of an index that it made."""
    root = tmp_path_factory.mktemp("instructed")
    layout = decoders.LAYOUTS["qwen3-embedding"]
    model = decoders.write_layout(root / "model", **layout)
    encoder = load_encoder(str(model), device="cpu")
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    Index.create(root / "index", encoder, documents, IndexConfig()).close()
    return model, root / "index"


def test_queries_get_the_instruction_and_documents_keep_their_vectors(made):
    model, folder = made
    lines = []
    with Retriever.open(
        folder, device="cpu", instruction="Find a miller", notify=lines.append
    ) as retriever:
        assert retriever.encoder.spec.query_prompt == "Instruct: Find a miller\nQuery:"
        assert "Query prompt: 'Instruct: Find a miller\\nQuery:'" in lines
        hits = retriever.search("who", 3, mode="dense")
        usual = load_encoder(str(model), device="cpu")
        asked = usual.encode_documents(["Instruct: Find a miller\nQuery:who"])
        expected = (usual.encode_documents(TEXTS) @ asked.T).ravel()
        np.testing.assert_allclose(
            [hit.score for hit in hits], [expected[int(hit.doc_id)] for hit in hits], atol=1e-5
        )


def test_without_the_request_another_query_prompt_is_refused(made):
    model, folder = made
    with pytest.raises(FingerprintError, match="query_prompt"):
        Retriever.open(folder, f"{model},query_prompt=Q: ", device="cpu")
    with pytest.raises(UsageError, match="The instruction is empty"):
        Retriever.open(folder, device="cpu", instruction=" ")


def test_another_prompt_excuses_nothing_else():
    index = Fingerprint("m", {"query_prompt": "a", "pooling": "mean"})
    check_fingerprints(
        index, Fingerprint("m", {"query_prompt": "b", "pooling": "mean"}), other_prompt=True
    )
    with pytest.raises(FingerprintError, match="pooling 'mean' against 'eos'") as refused:
        check_fingerprints(
            index, Fingerprint("m", {"query_prompt": "b", "pooling": "eos"}), other_prompt=True
        )
    assert "query_prompt" not in str(refused.value)


def test_a_served_index_takes_the_instruction_of_its_model(made):
    _, folder = made
    with Index.open(folder) as index:
        from embedder.loading import load_for_index

        encoder = load_for_index(index.fingerprint, device="cpu", instruction="Find a miller")
        served = serve_embedder(encoder)
        assert ServedIndex("one", index, served, other_prompt=True).model is served
        with pytest.raises(FingerprintError, match="query_prompt"):
            ServedIndex("one", index, served)
