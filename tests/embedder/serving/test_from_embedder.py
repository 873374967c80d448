"""A real, tiny Embedder behind the server: counts, token ids and vectors are the library's own."""

import asyncio
import json
import subprocess
import sys

import httpx
import numpy as np
import pytest

from embedder import Embedder
from embedder.engine.text import TextTokenizer
from embedder.serving import server as server_module
from embedder.serving.served import serve_embedder
from retrieval.errors import UsageError


@pytest.fixture
def load(base_folder):
    def loaded(options="", variant="mean+causal"):
        return Embedder.load(f"{base_folder['llama']}:{variant}{options}", device="cpu")

    return loaded


def lengths(model, texts, role):
    return [len(row) for row in model.tokenize(texts, role).rows]


def test_texts_become_the_tokens_that_the_model_sees(load):
    encoder = load(",query_prompt=query: ")
    model = serve_embedder(encoder)
    texts = ["", "abc", "é"]
    assert lengths(model, texts, "document") == [1, 4, 3]  # a token a byte, and EOS
    assert lengths(model, texts, "query") == [8, 11, 10]  # "query: " is 7 bytes
    assert model.tokenize(texts, "query").rows == encoder.tokenize(texts, "query: ")


def test_a_text_counts_as_too_long_from_the_first_token_that_would_be_cut(load):
    model = serve_embedder(load(",max_tokens=8"))
    assert model.max_tokens == 8
    texts = ["x" * 7, "x" * 8, "x" * 100_000]
    assert model.tokenize(texts, "document").truncated == [False, True, True]
    assert lengths(model, texts, "document") == [8, 8, 8]


def test_a_text_is_tokenised_once(load, serve, monkeypatch):
    seen = []
    tokenize = TextTokenizer.tokenize

    def watch(self, texts, *rest):
        seen.extend(texts)
        return tokenize(self, texts, *rest)

    client = serve([serve_embedder(load())])
    monkeypatch.setattr(TextTokenizer, "tokenize", watch)
    texts = ["one", "two " * 20]
    answer = client.post("/v1/embeddings", json={"input": texts, "truncate": True})
    assert answer.status_code == 200
    assert seen == texts


def test_cut_at_the_left_a_text_keeps_its_prompt_and_its_end(load):
    encoder = load(",max_tokens=10,query_prompt=q: ")
    model = serve_embedder(encoder)
    texts = ["0123456789", "short"]
    found = model.tokenize_left(texts, "query")
    assert found.truncated == [True, False]
    # 10 tokens: "q: " has 3, EOS is 1, so 6 of the 10 digits stay.
    assert [model.decode(row) for row in found.rows] == ["q: 456789", "q: short"]
    assert [len(row) for row in found.rows] == [10, 9]
    assert model.tokenize(texts, "query").rows[1] == found.rows[1]
    assert model.decode(model.tokenize(texts, "query").rows[0]) == "q: 012345"


def test_a_long_text_keeps_its_very_end(load):
    model = serve_embedder(load(",max_tokens=8,lowercase=true"))
    ((row,), (is_cut,)) = (
        model.tokenize_left(["x" * 100_000 + "THE END"], "document").rows,
        model.tokenize_left(["x" * 100_000 + "THE END"], "document").truncated,
    )
    assert is_cut
    assert model.decode(row) == "the end"


def test_vectors_keep_their_length_where_asked(load, serve):
    encoder, plain = load(), load(",normalize=false")
    client = serve([serve_embedder(encoder)])
    texts = ["one", "a longer text"]
    raw = client.post("/embed", json={"inputs": texts, "normalize": False}).json()
    expected = plain.encode_documents(texts)
    assert not np.allclose(np.linalg.norm(expected, axis=1), 1, atol=0.1)
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    for body in ({"normalize": True}, {}):
        found = client.post("/embed", json={"inputs": texts, **body}).json()
        np.testing.assert_allclose(found, encoder.encode_documents(texts), atol=1e-5)
    assert encoder.spec.normalize
    other = serve([serve_embedder(plain)])
    as_it_is = other.post("/embed", json={"inputs": texts}).json()
    np.testing.assert_allclose(as_it_is, expected, atol=1e-5)
    scaled = other.post("/embed", json={"inputs": texts, "normalize": True}).json()
    np.testing.assert_allclose(scaled, encoder.encode_documents(texts), atol=1e-5)


def test_a_prompt_that_is_not_pooled_is_not_pooled_here_either(load, serve):
    encoder = load(",query_prompt=query: ,pool_prompt=false")
    pooled = load(",query_prompt=query: ")
    client = serve([serve_embedder(encoder)])
    texts = ["one", "a longer text"]
    for role, expected in (
        ("document", encoder.encode_documents(texts)),
        ("query", encoder.encode_queries(texts)),
    ):
        found = client.post("/embed", json={"inputs": texts, "prompt_name": role}).json()
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(found, pooled.encode_queries(texts), atol=1e-3)
    left = {"inputs": "x", "truncation_direction": "left"}
    assert "at the end (right) alone" in client.post("/embed", json=left).text


def test_tokens_are_shown_as_the_model_reads_them(load, serve):
    client = serve([serve_embedder(load(",max_tokens=8,query_prompt=q "))])
    body = {"inputs": ["ab", "x" * 20], "prompt_name": "query"}
    short, long = client.post("/tokenize", json=body).json()
    assert [token["text"] for token in short][:-1] == ["q", " ", "a", "b"]
    assert [token["special"] for token in short] == [False, False, False, False, True]  # EOS
    assert len(long) == 23  # 2 of the prompt, 20, EOS: more than the model reads
    bare = client.post("/tokenize", json={**body, "add_special_tokens": False}).json()
    assert bare == [short[:-1], long[:-1]]


def test_token_ids_become_the_text_they_came_from(load):
    encoder = load()
    model = serve_embedder(encoder)
    (row,) = encoder.tokenize(["Zürich <eos> "])
    assert model.decode(row) == "Zürich <eos> "  # the EOS at the end is dropped, the text is not
    for wrong in (-1, 259):
        with pytest.raises(UsageError, match="vocabulary of 259 tokens"):
            model.decode([3, wrong])


def test_served_vectors_are_the_librarys_whatever_the_mix(load, serve):
    encoder = load(",query_prompt=query: ", "last_layer+bidirectional")
    client = serve([serve_embedder(encoder)], batch_tokens=50)
    texts = ["x" * length for length in range(30)]
    expected = {
        "query": encoder.encode_queries(texts),
        "document": encoder.encode_documents(texts),
    }

    async def ask(http, start, role):
        body = {"input": texts[start : start + 3], "input_type": role}
        answer = await http.post("/v1/embeddings", json=body)
        found = [item["embedding"] for item in answer.json()["data"]]
        np.testing.assert_allclose(found, expected[role][start : start + 3], atol=1e-5)

    async def run():
        async with httpx.AsyncClient(base_url=client.running.url, timeout=120) as http:
            await asyncio.gather(
                *(ask(http, start, role) for start in range(0, 30, 3) for role in expected)
            )

    asyncio.run(run())


def test_only_lengths_that_a_saved_model_was_trained_for_are_offered(load, tmp_path):
    from embedder.models.saving import save_model

    folder = tmp_path / "model"
    record = {"config": {"loss": {"matryoshka_dimensions": [16, 8, 32]}}}
    save_model(load(), folder, record=record)
    assert json.loads((folder / "millpond.json").read_text())["record"] == record
    model = serve_embedder(Embedder.load(str(folder), device="cpu"))
    assert model.encoder.dimension == 32
    assert model.dimensions == (8, 16)
    cut = serve_embedder(Embedder.load(f"{folder},dimension=16", device="cpu"))
    assert cut.dimensions == (8,)
    assert serve_embedder(load()).dimensions == ()


def test_the_package_is_imported_without_torch():
    code = "import sys, embedder.serving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_embed_all_gives_the_states_that_the_pooling_reads(load, serve):
    encoder = load(",query_prompt=query: ,max_tokens=30")
    client = serve([serve_embedder(encoder)])
    texts = ["a pond", "", "the mill by the pond"]
    found = client.post("/embed_all", json={"inputs": texts, "prompt_name": "query"}).json()
    shown = client.post("/tokenize", json={"inputs": texts, "prompt_name": "query"}).json()
    assert [len(states) for states in found] == [len(tokens) for tokens in shown]
    means = np.array([np.mean(states, axis=0) for states in found])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_queries(texts), expected, atol=1e-5)
    one = client.post("/embed_all", json={"inputs": texts[0], "prompt_name": "query"}).json()
    np.testing.assert_allclose(one, found[:1], atol=1e-6)
    long = {"inputs": "x" * 100}
    assert client.post("/embed_all", json=long).status_code == 413
    cut = client.post("/embed_all", json={**long, "truncate": True}).json()
    assert np.shape(cut) == (1, 30, encoder.backbone.width)


def test_more_vectors_of_tokens_than_an_answer_holds_are_refused(load, serve, monkeypatch):
    encoder = load()
    monkeypatch.setattr(server_module, "TOKEN_NUMBERS", 8 * encoder.backbone.width + 1)
    client = serve([serve_embedder(encoder)])
    assert client.post("/embed_all", json={"inputs": "x" * 7}).status_code == 200  # and EOS
    refused = client.post("/embed_all", json={"inputs": ["x" * 7, ""]})
    assert refused.status_code == 413
    assert "inputs has 9 tokens; expected 8 at most" in refused.json()["error"]


def test_a_model_that_leaves_its_prompt_out_of_the_pooling_shows_no_states(load, serve):
    client = serve([serve_embedder(load(",query_prompt=q: ,pool_prompt=false"))])
    assert client.post("/embed_all", json={"inputs": "x"}).status_code == 424


def test_token_ids_become_the_text_again(load, serve):
    client = serve([serve_embedder(load())])
    texts = ["a pond", "mühle 水"]
    tokens = client.post("/tokenize", json={"inputs": texts}).json()
    ids = [[token["id"] for token in row] for row in tokens]
    assert client.post("/decode", json={"ids": ids}).json() == texts
    assert client.post("/decode", json={"ids": ids[0]}).json() == texts[:1]
    [whole] = client.post("/decode", json={"ids": ids[0], "skip_special_tokens": False}).json()
    assert whole.startswith("a pond") and whole != "a pond"
    wrong = client.post("/decode", json={"ids": [10**9]})
    assert wrong.status_code == 422
    assert "is not in the model's vocabulary" in wrong.json()["error"]
