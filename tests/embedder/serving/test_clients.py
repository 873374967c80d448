"""What LangChain, LlamaIndex, Haystack and Ollama's clients send, byte for byte in its fields."""

import base64

import numpy as np
import pytest

from embedder.serving import served
from tests.embedder.serving import fakes

TEXTS = ["one two", "three"]


@pytest.fixture
def ask(serve):
    def post(body, path="/v1/embeddings", models=None, **settings):
        return serve(models, **settings).post(path, json=body)

    return post


def read(item):
    if isinstance(item, str):
        return np.frombuffer(base64.b64decode(item), dtype="<f4")
    return np.array(item)


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize(
    "body",
    [
        # langchain_openai.OpenAIEmbeddings(check_embedding_ctx_length=False), through openai
        {"input": TEXTS, "encoding_format": "base64"},
        # llama_index OpenAILikeEmbedding, through openai
        {"input": TEXTS, "encoding_format": "base64", "dimensions": fakes.DIMENSION},
        # haystack OpenAIDocumentEmbedder
        {"input": TEXTS, "encoding_format": "float"},
    ],
)
def test_the_role_is_part_of_the_name(ask, encoder, body, role):
    answer = ask({**body, "model": f"hash:{role}"}).json()
    assert answer["model"] == f"hash:{role}"
    found = [read(item["embedding"]) for item in answer["data"]]
    np.testing.assert_allclose(found, [encoder.vector(text, role) for text in TEXTS], atol=1e-6)


@pytest.mark.parametrize("name", ["st:org/model", "base:mean+causal,max_tokens=48", "odd:query"])
def test_names_with_colons_stay_whole(serve, name):
    encoder = fakes.HashingEncoder(name)
    client = serve([fakes.make_model(encoder)])
    for asked, role in ((name, "document"), (f"{name}:query", "query")):
        answer = client.post("/v1/embeddings", json={"model": asked, "input": "x"}).json()
        np.testing.assert_allclose(
            answer["data"][0]["embedding"], encoder.vector("x", role), atol=1e-6
        )
        assert client.get(f"/v1/models/{asked}").json()["input_type"] == role


def test_a_model_of_that_very_name_comes_before_a_role(serve, encoder):
    other = fakes.HashingEncoder("hash:query")
    client = serve([fakes.make_model(encoder), fakes.make_model(other)])
    answer = client.post("/v1/embeddings", json={"model": "hash:query", "input": "x"}).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"], other.vector("x"), atol=1e-6)
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert len(names) == len(set(names)) == 5


def test_a_name_and_an_input_type_that_disagree_are_refused(ask):
    answer = ask({"model": "hash:query", "input": "x", "input_type": "document"})
    assert answer.status_code == 400
    assert "Leave one of them out" in answer.json()["error"]["message"]
    assert ask({"model": "hash:query", "input": "x", "input_type": "query"}).status_code == 200


def test_unknown_names_list_the_known_ones(ask):
    answer = ask({"model": "hash:passage", "input": "x"})
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert "'hash:passage' is not served here. Served: hash, hash:query, hash:document." in message


@pytest.mark.parametrize("ids", [[[15339, 1917]], [15339, 1917]])
def test_the_token_ids_that_langchain_sends_by_default_are_refused(ask, ids):
    # cl100k ids of "hello world"
    answer = ask({"input": ids, "model": "hash", "encoding_format": "base64"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "check_embedding_ctx_length=False" in error["message"]
    assert "--accept-token-ids" in error["message"]
    assert (error["code"], error["param"]) == ("token_ids_refused", "input")


@pytest.mark.parametrize(
    ("model", "role"), [("hash", "document"), ("hash:latest", "document"), ("hash:query", "query")]
)
def test_ollamas_embed_gives_vectors(ask, encoder, model, role):
    # ollama.Client.embed, which langchain_ollama and llama_index call
    body = {"model": model, "input": TEXTS, "options": {"temperature": 0.0}, "keep_alive": "5m"}
    answer = ask(body, "/api/embed")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    expected = [encoder.vector(text, role) for text in TEXTS]
    np.testing.assert_allclose(found["embeddings"], expected, atol=1e-6)
    assert (found["model"], found["prompt_eval_count"]) == (model, 3)
    assert isinstance(found["total_duration"], int)


def test_ollamas_embed_cuts_unless_told_not_to(ask, encoder):
    long = " ".join(["x"] * 21)  # one more than MAX_TOKENS
    assert ask({"model": "hash", "input": long}, "/api/embed").json()["prompt_eval_count"] == 20
    refused = ask({"model": "hash", "input": long, "truncate": False}, "/api/embed")
    assert refused.status_code == 413
    assert list(refused.json()) == ["error"]
    window = ask({"model": "hash", "input": "x", "options": {"num_ctx": 10}}, "/api/embed")
    assert window.status_code == 400
    assert "hash,max_tokens=10" in window.json()["error"]
    for enough in (20, 4096):
        body = {"model": "hash", "input": "x", "options": {"num_ctx": enough}}
        assert ask(body, "/api/embed").status_code == 200


def test_ollamas_tags_list_the_names(serve):
    models = serve().get("/api/tags").json()["models"]
    assert [model["name"] for model in models] == ["hash", "hash:query", "hash:document"]


class CountingEncoder(fakes.HashingEncoder):
    """An encoder that takes texts alone, as sentence-transformers' do."""

    encode_tokens = None
    max_tokens = 3
    normalized = True
    device = "cpu"
    dtype = "float32"

    def count_tokens(self, texts, role):
        counts = [len(text.split()) for text in texts]
        return [min(count, 3) for count in counts], [count > 3 for count in counts]


def test_an_encoder_of_texts_is_served_without_token_ids(serve, monkeypatch):
    monkeypatch.setattr(served, "SentenceTransformersEncoder", CountingEncoder)
    encoder = CountingEncoder("st:org/model")
    client = serve([served.serve_embedder(encoder)], accept_token_ids=True)
    for name, role in (("st:org/model", "document"), ("st:org/model:query", "query")):
        answer = client.post("/v1/embeddings", json={"model": name, "input": TEXTS}).json()
        found = [item["embedding"] for item in answer["data"]]
        np.testing.assert_allclose(found, [encoder.vector(text, role) for text in TEXTS], atol=1e-6)
        assert answer["usage"]["prompt_tokens"] == 3
    long = client.post("/v1/embeddings", json={"input": "a b c d"})
    assert (long.status_code, long.json()["error"]["code"]) == (413, "context_length_exceeded")
    cut = client.post("/v1/embeddings", json={"input": "a b c d", "truncate": True}).json()
    assert cut["usage"]["prompt_tokens"] == 3
    ids = client.post("/v1/embeddings", json={"input": [1, 2]})
    assert "takes text, not token ids" in ids.json()["error"]["message"]
