import numpy as np
import pytest

from embedder.serving import ServedIndex, Server, ServerSettings
from retrieval.errors import FingerprintError, UsageError
from tests.embedder.serving import fakes


@pytest.fixture
def client(serve, searchable):
    return serve([searchable.model], [searchable])


def ask(client, **body):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_query_finds_what_the_index_finds_for_its_vector(client, encoder, searchable):
    found = ask(client, query="text of 2020", input_type="document", k=2)
    assert (found["index"], found["model"]) == ("years", "hash")
    expected = searchable.index.search(np.array([encoder.vector("text of 2020")]), 2)[0]
    assert [hit["doc_id"] for hit in found["hits"]] == [hit.doc_id for hit in expected]
    best = found["hits"][0]
    assert best["score"] == pytest.approx(1.0)  # the same text, a unit vector
    assert (best["rank"], best["doc_id"], best["text"]) == (1, "d2020", "text of 2020")
    assert best["metadata"] == {"year": 2020}


def test_a_query_goes_with_the_query_prompt_unless_asked_otherwise(client, encoder):
    found = ask(client, query="text of 2020", k=4)
    scores = {hit["doc_id"]: hit["score"] for hit in found["hits"]}
    vector = encoder.vector("text of 2020", "query")
    for year in range(2019, 2023):
        expected = float(vector @ encoder.vector(f"text of {year}"))
        assert scores[f"d{year}"] == pytest.approx(expected, abs=1e-6)


def test_a_vector_of_any_length_finds_by_direction(client, encoder):
    vector = (3 * encoder.vector("text of 2021")).tolist()
    best = ask(client, vector=vector, k=1)["hits"][0]
    assert (best["doc_id"], best["score"]) == ("d2021", pytest.approx(1.0, abs=1e-6))


def test_a_filter_comes_before_the_search(client):
    found = ask(client, query="text of 2019", input_type="document", filter="year >= 2021", k=4)
    assert {hit["doc_id"] for hit in found["hits"]} == {"d2021", "d2022"}


def test_indexes_are_chosen_by_name_and_listed(serve, searchable):
    other = fakes.HashingEncoder("other", dimension=8)
    model = fakes.make_model(other)
    rows = [("only", "alone", {"lang": "en"})]
    second = ServedIndex("second", fakes.ListIndex(other, rows), model, {"lang": "string"})
    client = serve([searchable.model, model], [searchable, second])
    assert ask(client, query="x", index="second")["hits"][0]["doc_id"] == "only"
    assert ask(client, query="x")["index"] == "years"  # the first by default
    assert client.get("/v1/indexes").json()["indexes"] == [
        {"name": "years", "documents": 4, "dimension": 16, "model": "hash", "fields": {}},
        {
            "name": "second",
            "documents": 1,
            "dimension": 8,
            "model": "other",
            "fields": {"lang": "string"},
        },
    ]


@pytest.mark.parametrize("wrong", ["year >=", 'year == "a"', "yeer == 2020"])
def test_a_filter_that_cannot_be_read_or_does_not_fit_is_the_filters_fault(client, wrong):
    error = client.post("/v1/search", json={"query": "x", "filter": wrong}).json()["error"]
    assert (error["param"], error["code"]) == ("filter", "invalid_filter")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "neither arrived"),
        ({"query": "x", "vector": [1.0]}, 400, "both arrived"),
        ({"vector": [1.0, 2.0]}, 400, "vector has 2 numbers; expected 16"),
        ({"vector": [1e308] * 16}, 400, "finite"),
        ({"query": "x", "k": 0}, 400, "k: Input should be greater"),
        ({"query": "x", "k": 1001}, 400, "expected 1 to 1000"),
        ({"query": "x", "index": "nowhere"}, 404, "Served: years"),
        ({"query": "x", "filter": "year >="}, 400, "column"),
        ({"query": "x", "filter": 'year == "a"'}, 400, "year"),
        ({"query": " ".join(["x"] * 21)}, 413, "more than the 20 tokens"),
    ],
)
def test_what_cannot_be_searched_is_an_error_in_words(client, body, status, says):
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


def test_a_number_that_is_not_finite_is_an_error(client):
    body = '{"vector": [' + ", ".join(["NaN"] * 16) + "]}"
    answer = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_without_an_index_a_search_says_how_to_start_one(serve):
    answer = serve().post("/v1/search", json={"query": "x"})
    assert answer.status_code == 404
    assert "--index DIR" in answer.json()["error"]["message"]


def test_an_index_of_another_model_is_refused(encoder):
    index = fakes.ListIndex(fakes.HashingEncoder("another"), [("a", "a", {})])
    with pytest.raises(FingerprintError, match="'another'"):
        ServedIndex("wrong", index, fakes.make_model(encoder))


def test_two_indexes_of_one_name_are_refused(serve, searchable):
    with pytest.raises(UsageError, match="--index NAME=DIR"):
        serve([searchable.model], [searchable, searchable])


def test_warming_up_uses_every_model_and_every_index(encoder, searchable):
    other = fakes.HashingEncoder("other")
    models = [searchable.model, fakes.make_model(other)]
    server = Server(models, [searchable], ServerSettings())
    searched = []
    searchable.index.search = lambda vectors, k, where: searched.append((vectors.shape, k))
    server.warm_up()
    assert other.batches == [("query", ["millpond"])]
    assert searched == [((1, 16), 1)]
