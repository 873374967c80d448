import numpy as np
import pytest

from embedder.serving import ServedIndex, Server, ServerSettings
from indexes import Index, IndexConfig
from indexes.group import IndexGroup
from retrieval import Document
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
        {
            "name": "years",
            "documents": 4,
            "dimension": 16,
            "model": "hash",
            "fields": {},
            "modes": ["dense"],
        },
        {
            "name": "second",
            "documents": 1,
            "dimension": 8,
            "model": "other",
            "fields": {"lang": "string"},
            "modes": ["dense"],
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
        ({"query": " "}, 400, "query is empty"),
        ({"query": "a\0b"}, 400, "query holds a NUL character"),
        ({"query": "x", "mode": "hybrid"}, 400, "no lexical arm"),
        ({"query": "x", "mode": "sparse"}, 400, "mode: Input should be"),
        ({"query": "x", "weight": 1.5}, 400, "between 0"),
        ({"query": "x", "fusion": "rrf", "weight": 0.5}, 400, "A weight goes with"),
        ({"vector": [1.0] * 16, "mode": "lexical"}, 400, "looks for words"),
        ({"query": "x", "index": ["years", "nowhere"]}, 404, "Served: years"),
        ({"query": "x", "index": []}, 400, "index"),
        ({"vector": [1.0, 2.0]}, 400, "vector has 2 numbers; expected 16"),
        ({"vector": [1e308] * 16}, 400, "finite"),
        ({"query": "x", "k": 0}, 400, "k: Input should be greater"),
        ({"query": "x", "k": 1001}, 400, "expected 1 to 1000"),
        ({"query": "x", "k": True}, 400, "k: Input should be a valid integer"),
        ({"query": "x", "k": "5"}, 400, "k: Input should be a valid integer"),
        ({"query": "x", "k": 1e1}, 400, "k: Input should be a valid integer"),
        ({"query": "x", "distinct": 1}, 400, "distinct: Input should be a valid boolean"),
        ({"query": "x", "truncate": "yes"}, 400, "truncate: Input should be a valid boolean"),
        ({"query": "x", "weight": True}, 400, "weight: Input should be a valid number"),
        ({"vector": [True] * 16}, 400, "vector.0: Input should be a valid number"),
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


@pytest.fixture
def two_armed(tmp_path, encoder):
    """An index of six texts with both arms, and two halves of it."""
    rows = ["corn and mills", "still water", "a pond", "old mills", "deep water", "pond life"]
    documents = [Document(f"d{n}", text) for n, text in enumerate(rows)]
    model = fakes.make_model(encoder)
    parts = {"all": documents, "even": documents[::2], "odd": documents[1::2]}
    return [
        ServedIndex(name, Index.create(tmp_path / name, encoder, part), model)
        for name, part in parts.items()
    ]


@pytest.fixture
def hybrid(serve, two_armed):
    return serve([two_armed[0].model], two_armed, join=IndexGroup)


def test_a_hit_of_a_hybrid_search_says_what_each_arm_gave(hybrid, two_armed, encoder):
    found = ask(hybrid, query="mills", k=6)
    assert found["mode"] == "hybrid"
    expected = two_armed[0].index.search(
        np.array([encoder.vector("mills", "query")]), 6, texts=["mills"]
    )[0]
    assert [hit["doc_id"] for hit in found["hits"]] == [hit.doc_id for hit in expected]
    for got, hit in zip(found["hits"], expected, strict=True):
        assert got["score"] == pytest.approx(hit.score, abs=1e-6)
        assert {name: (arm["score"], arm["rank"]) for name, arm in got["arms"].items()} == {
            name: (pytest.approx(arm.score, abs=1e-6), arm.rank) for name, arm in hit.arms.items()
        }
    matched = {hit["doc_id"]: hit["matched"] for hit in found["hits"]}
    assert matched == {d: ["mills"] if d in ("d0", "d3") else [] for d in matched}


def test_words_alone_are_searched_without_the_model(hybrid, encoder):
    encoder.batches.clear()
    found = ask(hybrid, query="water", mode="lexical")
    assert {hit["doc_id"] for hit in found["hits"]} == {"d1", "d4"}
    assert encoder.batches == []


def test_a_query_with_its_vector_is_not_embedded_again(hybrid, encoder):
    alone = ask(hybrid, query="water")
    encoder.batches.clear()
    both = ask(hybrid, query="water", vector=encoder.vector("water", "query").tolist())
    assert [(hit["doc_id"], hit["score"]) for hit in both["hits"]] == [
        (hit["doc_id"], pytest.approx(hit["score"], abs=1e-6)) for hit in alone["hits"]
    ]
    assert encoder.batches == []


def test_a_vector_alone_is_searched_by_meaning_and_a_mode_can_be_asked_for(hybrid, encoder):
    vector = encoder.vector("water", "query").tolist()
    assert ask(hybrid, vector=vector)["mode"] == "dense"
    assert ask(hybrid, query="water", mode="dense")["hits"] == ask(hybrid, vector=vector)["hits"]
    weighted = [ask(hybrid, query="water", weight=w)["hits"][0]["score"] for w in (0, 1)]
    assert weighted == [pytest.approx(1.0)] * 2
    assert ask(hybrid, query="water", fusion="rrf")["hits"][0]["score"] < 2 / 60


def test_several_indexes_are_searched_as_one_and_hits_name_theirs(hybrid):
    whole = ask(hybrid, query="water", mode="dense", k=6)["hits"]
    found = ask(hybrid, query="water", mode="dense", k=6, index=["even", "odd"])
    assert found["index"] == ["even", "odd"]
    assert [(hit["doc_id"], hit["score"]) for hit in found["hits"]] == [
        (hit["doc_id"], hit["score"]) for hit in whole
    ]
    assert all(
        hit["index"] == ("even" if int(hit["doc_id"][1:]) % 2 == 0 else "odd")
        for hit in found["hits"]
    )


def test_several_indexes_of_two_models_are_refused(serve, searchable):
    model = fakes.make_model(fakes.HashingEncoder("other"))
    second = ServedIndex("second", fakes.ListIndex(model.encoder, [("only", "alone", {})]), model)
    client = serve([searchable.model, model], [searchable, second], join=IndexGroup)
    answer = client.post("/v1/search", json={"query": "x", "index": ["years", "second"]})
    assert answer.status_code == 400
    assert "years was made with hash, second with other" in answer.json()["error"]["message"]


def test_without_an_index_a_search_says_how_to_start_one(serve):
    answer = serve().post("/v1/search", json={"query": "x"})
    assert answer.status_code == 404
    assert "millpond serve DIR" in answer.json()["error"]["message"]


def test_an_index_of_another_model_is_refused(encoder):
    index = fakes.ListIndex(fakes.HashingEncoder("another"), [("a", "a", {})])
    with pytest.raises(FingerprintError, match="'another'"):
        ServedIndex("wrong", index, fakes.make_model(encoder))


def test_two_indexes_of_one_name_are_refused(serve, searchable):
    with pytest.raises(UsageError, match="as in NAME=DIR"):
        serve([searchable.model], [searchable, searchable])


def test_warming_up_uses_every_model_and_every_index(encoder, searchable):
    other = fakes.HashingEncoder("other")
    models = [searchable.model, fakes.make_model(other)]
    server = Server(models, [searchable], ServerSettings())
    searched = []
    searchable.index.search = lambda vectors, k, **rest: searched.append((vectors.shape, k))
    server.warm_up()
    assert other.batches == [("query", ["millpond"])]
    assert searched == [((1, 16), 1)]


def test_what_a_server_refuses_names_indexes_and_no_folder(serve, two_armed, tmp_path, encoder):
    model = two_armed[0].model
    again = ServedIndex("again", Index.open(tmp_path / "all"), model)
    dense = IndexConfig(arms=("dense",))
    deaf = Index.create(tmp_path / "deaf", encoder, [Document("a", "x")], dense)
    [words] = (tmp_path / "odd" / "lexical").glob("*.idx")
    words.write_bytes(b"short")
    damaged = ServedIndex("damaged", Index.open(tmp_path / "odd"), model)
    client = serve(
        [model], [*two_armed, again, ServedIndex("deaf", deaf, model), damaged], join=IndexGroup
    )
    for body, says in [
        ({"index": ["all", "again"]}, "all and again are the same index"),
        ({"index": "deaf", "mode": "lexical"}, "deaf cannot be searched with mode lexical"),
        ({"index": "damaged", "mode": "hybrid"}, "damaged cannot be searched with mode hybrid"),
        ({"index": ["all", "deaf"], "mode": "lexical"}, "all, deaf cannot be searched"),
        ({"index": "damaged", "weight": 0.5}, "leave the weight out"),
    ]:
        answer = client.post("/v1/search", json={"query": "x", **body})
        assert answer.status_code == 400
        assert says in answer.text
        assert str(tmp_path) not in answer.text
    assert (
        client.post("/v1/search", json={"query": "x", "index": ["all", "all"]}).status_code == 200
    )
