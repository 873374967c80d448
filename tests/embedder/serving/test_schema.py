"""Requests made from our own OpenAPI description never break the server."""

from dataclasses import replace

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.embedder.serving.test_rerank_api import WordCounter

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture
def started(serve, searchable):
    model = replace(searchable.model, show=lambda text, role, most: ([], False))
    indexes = [replace(searchable, model=model)]
    return serve([model], indexes, reranker=WordCounter()).running


GOOD = {
    "/v1/embeddings": {"input": "a pond of tokens"},
    "/v1/search": {"query": "a pond of tokens"},
    "/embed": {"inputs": "a pond of tokens"},
    "/similarity": {"inputs": {"source_sentence": "a pond", "sentences": ["of tokens"]}},
    "/tokenize": {"inputs": "a pond of tokens"},
    "/rerank": {"query": "a pond", "texts": ["of tokens"]},
    "/v1/rerank": {"query": "a pond", "documents": ["of tokens"]},
    "/api/embed": {"model": "hash", "input": "a pond of tokens"},
}


@pytest.mark.fuzz
@pytest.mark.parametrize("path", GOOD)
def test_no_request_that_fits_the_description_or_does_not_is_a_5xx(started, path):
    operation = schemathesis.openapi.from_url(f"{started.url}/openapi.json")[path]["POST"]
    modes = schemathesis.GenerationMode
    fits, does_not = (operation.as_strategy(generation_mode=mode) for mode in modes)
    assert operation.Case(body=GOOD[path]).call(base_url=started.url).status_code == 200
    seen = set()

    # Most generated bodies are refused for their first bad field; a good body with one generated
    # field in it comes further.
    @given(st.one_of(fits, does_not), st.sampled_from(["whole", "field"]), st.integers(0, 9))
    @settings(
        max_examples=60,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case, what, which):
        if what == "field" and isinstance(case.body, dict) and case.body:
            name = sorted(case.body)[which % len(case.body)]
            case.body = {**GOOD[path], name: case.body[name]}
        answer = case.call(base_url=started.url)
        seen.add(answer.status_code)
        assert answer.status_code < 500, answer.text

    ask()
    assert seen & {400, 404, 422}


def test_every_path_without_a_body_answers(started):
    paths = httpx.get(f"{started.url}/openapi.json").json()["paths"]
    plain = [path for path, routes in paths.items() if "get" in routes and "{" not in path]
    assert set(plain) >= {"/v1/models", "/v1/indexes", "/info", "/health", "/metrics"}
    for path in plain:
        assert httpx.get(started.url + path).status_code == 200


def test_no_field_takes_a_value_of_another_kind(started):
    """True is no integer, "5" no number and 1 no boolean, whatever the route."""
    described = httpx.get(f"{started.url}/openapi.json").json()
    schemas = described["components"]["schemas"]
    wrong = {"integer": [True, "5", 5.0], "number": [True, "5"], "boolean": [1, "true"]}
    tried = 0
    for path, body in GOOD.items():
        sent = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        fields = schemas[sent["schema"]["$ref"].rpartition("/")[2]]["properties"]
        for name, field in fields.items():
            kinds = {kind.get("type") for kind in field.get("anyOf", [field])}
            for value in [one for kind in kinds for one in wrong.get(kind, [])]:
                if "string" in kinds and isinstance(value, str):
                    continue
                answer = httpx.post(started.url + path, json=body | {name: value})
                assert answer.status_code in (400, 422), (path, name, value)
                assert name in answer.text
                tried += 1
    assert tried > 30
