import numpy as np
import pytest


@pytest.mark.parametrize("path", ["/embed", "/"])
@pytest.mark.parametrize("inputs", ["one text", ["one text", "another"]])
def test_embed_gives_a_list_of_vectors(serve, encoder, inputs, path):
    answer = serve().post(path, json={"inputs": inputs})
    texts = [inputs] if isinstance(inputs, str) else inputs
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json(), [encoder.vector(text) for text in texts], atol=1e-7)


def test_prompt_name_chooses_the_prompt(serve, encoder):
    answer = serve().post("/embed", json={"inputs": "x", "prompt_name": "query"})
    np.testing.assert_allclose(answer.json(), [encoder.vector("x", "query")], atol=1e-7)


def test_a_text_that_is_too_long_is_cut_only_when_asked(serve):
    client = serve()
    long = " ".join(["x"] * 21)
    refused = client.post("/embed", json={"inputs": long})
    assert refused.status_code == 413
    assert refused.json()["error_type"] == "Validation"
    assert "20 tokens" in refused.json()["error"]
    cut = client.post("/embed", json={"inputs": long, "truncate": True})
    assert (cut.status_code, len(cut.json())) == (200, 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": 3},
        {"inputs": "x", "normalize": False},
        {"inputs": "x", "truncation_direction": "left"},
        {"inputs": "x", "dimensions": 3},
    ],
)
def test_errors_have_the_body_that_tei_clients_read(serve, body):
    answer = serve().post("/embed", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "error_type"}


def test_similarity_is_the_cosine_with_each_of_the_others(serve, encoder):
    sentences = ["one", "two", "source"]
    body = {"inputs": {"source_sentence": "source", "sentences": sentences}}
    found = serve().post("/similarity", json=body).json()
    source = encoder.vector("source")
    expected = [float(source @ encoder.vector(text)) for text in sentences]
    assert found == pytest.approx(expected, abs=1e-6)
    assert found[2] == pytest.approx(1, abs=1e-6)
    assert found[0] != pytest.approx(found[1], abs=1e-3)
    body["parameters"] = {"prompt_name": "query"}
    as_queries = serve().post("/similarity", json=body).json()
    source = encoder.vector("source", "query")
    assert as_queries[0] == pytest.approx(float(source @ encoder.vector("one", "query")), abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/similarity", {"inputs": {"source_sentence": "x", "sentences": []}}, "sentences"),
        ("/similarity", {"inputs": {"source_sentence": "x"}}, "Field required"),
        ("/tokenize", {"inputs": "x"}, "does not show its tokens"),
        ("/embed", {"inputs": "x", "truncation_direction": "Left"}, "at the end (right) alone"),
        ("/", {"inputs": "x", "normalize": False}, "cannot undo it"),
    ],
)
def test_what_this_model_cannot_do_is_said(serve, path, body, says):
    answer = serve().post(path, json=body)
    assert answer.status_code == 422
    assert says in answer.json()["error"]
    assert set(answer.json()) == {"error", "error_type"}


def test_a_failing_model_is_a_backend_error(serve):
    answer = serve().post("/embed", json={"inputs": "poison"})
    assert answer.status_code == 500
    assert answer.json()["error_type"] == "Backend"


def test_info_says_what_is_served_and_its_limits(serve):
    info = serve(batch_tokens=99, queue_requests=7).get("/info").json()
    assert (info["model_id"], info["max_input_length"], info["version"]) == ("hash", 20, "1.2.3")
    assert (info["max_batch_tokens"], info["max_concurrent_requests"]) == (99, 7)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/embed_all", {"inputs": "x"}, "does not show the vectors of its tokens"),
        ("/embed_sparse", {"inputs": "x"}, "dense vectors alone"),
        ("/predict", {"inputs": "x"}, "no classifier"),
    ],
)
def test_what_a_model_of_another_kind_would_give_is_a_failed_dependency(serve, path, body, says):
    answer = serve().post(path, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    "body", [{}, {"ids": "x"}, {"ids": [-1]}, {"ids": [True]}, {"ids": [[]], "x": 1}]
)
def test_token_ids_that_are_none_are_refused(serve, body):
    answer = serve().post("/decode", json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")
