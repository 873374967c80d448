"""The official client of OpenAI against our server."""

import base64

import numpy as np
import pytest

from tests.embedder.serving import fakes

openai = pytest.importorskip("openai", reason="the openai client is not installed")


@pytest.fixture
def connect():
    clients = []

    def make(client, key="none"):
        found = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=key, max_retries=0)
        clients.append(found)
        return found

    yield make
    for one in clients:
        one.close()


def test_texts_become_vectors_in_their_order_with_a_count_of_tokens(serve, connect, encoder):
    answer = connect(serve()).embeddings.create(model="hash", input=["one two", "three"])
    assert [item.index for item in answer.data] == [0, 1]
    np.testing.assert_allclose(
        [item.embedding for item in answer.data],
        [encoder.vector("one two"), encoder.vector("three")],
        atol=1e-6,
    )
    assert answer.model == "hash"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)  # 2 + 1 words


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("one text", ["one text"]),
        ([7, 8], ["w7 w8"]),
        ([[7], [8, 9]], ["w7", "w8 w9"]),
        ("", [""]),
    ],
)
def test_every_form_of_input_is_read(serve, connect, encoder, given, read):
    answer = connect(serve(accept_token_ids=True)).embeddings.create(model="hash", input=given)
    found = [item.embedding for item in answer.data]
    np.testing.assert_allclose(found, [encoder.vector(text) for text in read], atol=1e-6)


def test_float_and_base64_hold_the_same_numbers(serve, encoder):
    client = serve()
    plain, packed = (
        client.post("/v1/embeddings", json={"input": "x", "encoding_format": encoding}).json()
        for encoding in ("float", "base64")
    )
    numbers = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    assert plain["data"][0]["embedding"] == numbers.tolist() == encoder.vector("x").tolist()


def test_input_type_chooses_the_prompt(serve, connect, encoder):
    client = connect(serve())
    for role in ("query", "document"):
        answer = client.embeddings.create(model="hash", input="x", extra_body={"input_type": role})
        expected = encoder.vector("x", role)
        np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)


def test_a_matryoshka_model_gives_shorter_vectors_of_length_one(serve, connect, encoder):
    client = connect(serve([fakes.make_model(encoder, dimensions=(4, 8))]))
    answer = client.embeddings.create(model="hash", input="x", dimensions=4)
    start = encoder.vector("x")[:4]
    expected = start / np.linalg.norm(start)
    np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="was trained for 4, 8, 16"):
        client.embeddings.create(model="hash", input="x", dimensions=5)


def test_any_other_model_refuses_shorter_vectors(serve, connect):
    client = connect(serve())
    full = client.embeddings.create(model="hash", input="x", dimensions=16)
    assert len(full.data[0].embedding) == 16
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="hash", input="x", dimensions=8)
    assert (refused.value.code, refused.value.param, refused.value.type) == (
        "unsupported_dimensions",
        "dimensions",
        "invalid_request_error",
    )


def test_models_are_listed_and_found_by_name(serve, connect, encoder):
    other = fakes.make_model(fakes.HashingEncoder("folder/other,max_tokens=48"))
    client = connect(serve([fakes.make_model(encoder), other]))
    assert [(model.id, model.input_type) for model in client.models.list()] == [
        ("hash", "document"),
        ("folder/other,max_tokens=48", "document"),
        ("hash:query", "query"),
        ("hash:document", "document"),
        ("folder/other,max_tokens=48:query", "query"),
        ("folder/other,max_tokens=48:document", "document"),
    ]
    assert client.models.retrieve("folder/other,max_tokens=48").owned_by == "millpond"
    with pytest.raises(openai.NotFoundError, match="Served: hash, folder/other"):
        client.models.retrieve("gpt-5")


def test_each_model_answers_for_itself(serve, connect, encoder):
    other = fakes.HashingEncoder("other", dimension=8)
    client = connect(serve([fakes.make_model(encoder), fakes.make_model(other)]))
    answer = client.embeddings.create(model="other", input="x")
    np.testing.assert_allclose(answer.data[0].embedding, other.vector("x"), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "kind", "param", "says"),
    [
        ({"model": "ada"}, "NotFoundError", "model", "'ada' is not served here"),
        ({"input": []}, "BadRequestError", "input", "expected a text, a list"),
        ({"input": [[]]}, "BadRequestError", "input", "expected a text, a list"),
        ({"input": [1, "a"]}, "BadRequestError", "input", "expected a text, a list"),
        ({"input": [True]}, "BadRequestError", "input", "expected a text, a list"),
        ({"input": ["x"] * 5}, "BadRequestError", "input", "5 texts; expected 4 at most"),
        ({"input": [[1]] * 5}, "BadRequestError", "input", "5 texts; expected 4 at most"),
        ({"input": [100]}, "BadRequestError", None, "not in the vocabulary"),
        ({"encoding_format": "hex"}, "BadRequestError", "encoding_format", "'float' or 'base64'"),
        ({"dimensions": 0}, "BadRequestError", "dimensions", "greater than or equal to 1"),
        ({"extra_body": {"input_typ": "query"}}, "BadRequestError", "input_typ", "not permitted"),
    ],
)
def test_errors_are_those_that_the_client_knows(serve, connect, change, kind, param, says):
    client = connect(serve(request_texts=4, accept_token_ids=True))
    with pytest.raises(getattr(openai, kind)) as refused:
        client.embeddings.create(**{"model": "hash", "input": "x", **change})
    assert says in refused.value.message
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_a_text_that_is_too_long_is_413_unless_it_may_be_cut(serve, connect, encoder):
    client = connect(serve())
    long = " ".join(["x"] * 21)  # one more than MAX_TOKENS
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model="hash", input=["fits", long])
    assert (refused.value.status_code, refused.value.code) == (413, "context_length_exceeded")
    assert "text 1 has more than the 20 tokens" in refused.value.message
    cut = {"truncate": True}
    answer = client.embeddings.create(model="hash", input=[long, "fits"], extra_body=cut)
    assert answer.usage.to_dict() == {
        "prompt_tokens": 21,
        "total_tokens": 21,
        "truncated_inputs": 1,
    }


def test_half_a_surrogate_pair_is_a_400_whose_message_can_be_sent(serve):
    body = b'{"input": ["ok", "\\ud800"]}'
    answer = serve().post(
        "/v1/embeddings", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "text 1 holds half a surrogate pair" in answer.json()["error"]["message"]


def test_a_model_without_a_decoder_takes_no_tokens(serve, connect, encoder):
    client = connect(serve([fakes.make_model(encoder, decode=None)], accept_token_ids=True))
    with pytest.raises(openai.BadRequestError, match="takes text, not token ids"):
        client.embeddings.create(model="hash", input=[1, 2])
