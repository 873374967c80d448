"""Requests made from our own OpenAPI description never break the server."""

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture
def started(serve, searchable):
    return serve([searchable.model], [searchable]).running


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/embeddings"), ("POST", "/v1/search"), ("POST", "/embed")]
)
def test_no_request_that_fits_the_description_or_does_not_is_a_5xx(started, method, path):
    schema = schemathesis.openapi.from_url(f"{started.url}/openapi.json")
    modes = schemathesis.GenerationMode
    seen = set()

    @given(st.one_of(*(schema[path][method].as_strategy(generation_mode=mode) for mode in modes)))
    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case):
        answer = case.call(base_url=started.url)
        seen.add(answer.status_code)
        assert answer.status_code < 500, answer.text

    ask()
    assert 200 in seen
    assert seen & {400, 422}


def test_every_path_without_a_body_answers(started):
    paths = httpx.get(f"{started.url}/openapi.json").json()["paths"]
    plain = [path for path, routes in paths.items() if "get" in routes and "{" not in path]
    assert set(plain) >= {"/v1/models", "/v1/indexes", "/info", "/health", "/metrics"}
    for path in plain:
        assert httpx.get(started.url + path).status_code == 200
