"""How a server is found and asked, and the one line for each way in which that can fail."""

import socket
import time
from email.utils import formatdate

import numpy as np
import pytest

from embedder.conform import http
from embedder.conform.endpoint import APIS, open_endpoint
from embedder.conform.http import RefusedError
from embedder.conform.texts import KINDS, grow_text, make_samples
from retrieval.errors import EndpointError, UnknownNameError, UsageError

TEXTS = ["a", "bc", ""]


def embed(texts):
    """Two numbers a text: its length and 1."""
    return [[len(text), 1.0] for text in texts]


@pytest.fixture
def waits(monkeypatch):
    """The seconds that were waited for, without waiting."""
    seconds = []
    monkeypatch.setattr(http.time, "sleep", seconds.append)
    return seconds


def count_words(text):
    return len(text.split())


def test_there_are_forty_texts_of_every_kind_and_the_long_ones_are_sized_by_the_limit():
    samples = make_samples(["<eos>"], count_words, 100)
    assert len(samples) == 40
    assert list(dict.fromkeys(sample.kind for sample in samples)) == list(KINDS)
    assert any("<eos>" in sample.text for sample in samples)
    lengths = [count_words(sample.text) for sample in samples if sample.kind == "long"]
    for length, least in zip(lengths, (50, 110, 150, 200), strict=True):
        assert least <= length < least + 9  # a sentence has 9 words
    assert len({sample.text for sample in samples}) == 40


def test_a_text_grows_to_the_first_sentence_that_is_enough():
    assert count_words(grow_text(count_words, 10)) == 18
    assert count_words(grow_text(count_words, 9)) == 9


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("named", [True, False])
def test_the_api_is_found_out_or_named_and_vectors_come_in_the_order_of_the_texts(
    api, named, start
):
    server = start(embed, api=api)
    endpoint = open_endpoint(server.url + "/", api=api if named else None)
    np.testing.assert_array_equal(endpoint.embed(TEXTS), [[1, 1], [2, 1], [0, 1]])
    path, body = server.requests[-1]
    assert path == APIS[api].embed_path
    assert body.get("model") == (None if api == "tei" else "tiny")
    assert api in endpoint.name


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1", "openai"), ("/v1/embeddings", "openai"), ("/embed", "tei"), ("/api/embed", "ollama")],
)
def test_an_address_may_have_the_path_of_its_api(path, api, start):
    server = start(embed, api=api)
    assert open_endpoint(server.url + path).embed(["a"]).tolist() == [[1, 1]]
    assert server.requests[-1][0] == APIS[api].embed_path


def test_of_several_models_one_has_to_be_chosen(start):
    server = start(embed, models=("one", "two"))
    with pytest.raises(UsageError, match=r"serves 2 models: one, two\. .*--remote-model NAME"):
        open_endpoint(server.url)
    open_endpoint(server.url, model="two").embed(["a"])
    assert server.requests[-1][1]["model"] == "two"


def test_a_server_that_lists_no_models_has_to_be_told_one(start):
    server = start(embed, models=())
    with pytest.raises(UsageError, match="lists no models"):
        open_endpoint(server.url)


def test_a_key_comes_from_a_variable_and_goes_into_the_header_alone(start, monkeypatch):
    server = start(embed)
    server.keys = ("secret",)
    with pytest.raises(EndpointError, match=r"answers 401: no such key\. It wants a key"):
        open_endpoint(server.url).embed(["a"])
    monkeypatch.setenv("MY_KEY", "wrong")
    with pytest.raises(EndpointError, match="The key in MY_KEY is not accepted") as caught:
        open_endpoint(server.url, key_variable="MY_KEY").embed(["a"])
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("MY_KEY", "secret")
    open_endpoint(server.url, key_variable="MY_KEY").embed(["a"])
    assert server.seen_keys[-1] == "Bearer secret"


def test_a_variable_without_a_key_is_refused(start, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    url = start(embed).url
    with pytest.raises(UsageError, match="MY_KEY is not set or empty"):
        open_endpoint(url, key_variable="MY_KEY")
    monkeypatch.setenv("MY_KEY", "a\nb")
    with pytest.raises(UsageError, match="characters that no HTTP header may hold"):
        open_endpoint(url, key_variable="MY_KEY")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://", "is not the address of a server"),
        ("http://host:port", "is not the address of a server"),
        ("http://host/?key=secret", "is not the address of a server"),
        ("http://me:secret@host", "The address holds a password"),
    ],
)
def test_what_is_no_address_is_refused(url, said):
    with pytest.raises(UsageError, match=said):
        open_endpoint(url)


def test_an_unknown_api_is_refused():
    with pytest.raises(UnknownNameError, match="openai, ollama, tei"):
        open_endpoint("http://127.0.0.1:1", api="grpc")


def test_a_server_that_is_down_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        EndpointError, match=rf"127.0.0.1:{port}/v1/models cannot be reached: .*ref"
    ):
        open_endpoint(f"http://127.0.0.1:{port}")


def test_a_web_page_is_no_embedding_server(start):
    server = start(embed)
    page = b"<!doctype html><title>Sign in</title>"
    server.listing = lambda path: (200, {"Content-Type": "text/html"}, page)
    with pytest.raises(EndpointError, match="none of /v1/models, /api/tags, /info"):
        open_endpoint(server.url)
    server.answers = [(200, {}, page)]
    endpoint = open_endpoint(server.url, api="openai", model="tiny")
    with pytest.raises(EndpointError, match=r"HTML, a page for people: '<!doctype html>"):
        endpoint.embed(["a"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"hello", "no JSON"),
        (b"{}", "holds no vectors: '{}'"),
        (b'{"data": [{"index": 0, "embedding": ["x"]}]}', "holds no vectors"),
        (b'{"data": [{"index": 0, "embedding": "AAAA"}]}', "holds no vectors"),
        (b'{"data": [{"index": 0, "embedding": [1, NaN]}]}', "NaN or infinity"),
        (b'{"data": [{"index": 0, "embedding": []}]}', "expected one vector per text"),
        (b'{"data": []}', "expected one vector per text"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_an_answer_without_vectors_is_said(answer, said, start):
    server = start(embed)
    server.answers = [(200, {}, answer)]
    with pytest.raises(EndpointError, match=said):
        open_endpoint(server.url).embed(["a"])


def test_vectors_of_two_lengths_are_refused(start):
    endpoint = open_endpoint(start(lambda texts: [[1.0] * (len(texts[0]) + 1)]).url)
    endpoint.embed(["a"])
    with pytest.raises(EndpointError, match="one text has 2 numbers and another 3"):
        endpoint.embed(["ab"])


def test_a_server_that_is_busy_is_asked_again_after_the_time_it_names(start, waits):
    server, said = start(embed), []
    date = formatdate(time.time() + 20, usegmt=True)
    server.answers = [
        (429, {"Retry-After": "7"}, b""),
        (503, {"Retry-After": date}, b""),
        (429, {}, b""),
    ]
    endpoint = open_endpoint(server.url, notify=said.append)
    assert endpoint.embed(["a"]).tolist() == [[1, 1]]
    first, second, third = waits
    assert (first, third) == (7, 4)  # without a header 1, 2, 4
    assert 15 < second <= 20
    assert said[0] == f"{server.url}/v1/embeddings answers 429 and is asked again in 7 s"


def test_a_server_that_stays_busy_is_given_up(start, waits):
    server = start(embed)
    server.answers = [(429, {"Retry-After": "1e9"}, b'{"error": "quota"}')] * 4
    with pytest.raises(EndpointError, match=r"429: quota\. It was asked 4 times; try again later"):
        open_endpoint(server.url).embed(["a"])
    assert waits == [60, 60, 60]  # nobody waits for 30 years


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "Check the address, --api and --remote-model"),
        (307, "It sends clients elsewhere"),
        (500, "See the log of the server"),
        (403, "It wants a key"),
    ],
)
def test_each_status_has_its_advice(status, said, start):
    server = start(embed)
    server.answers = [(status, {"Location": "http://127.0.0.1:9/"}, b'{"detail": "why"}')]
    with pytest.raises(EndpointError, match=rf"answers {status}: why\. {said}"):
        open_endpoint(server.url).embed(["a"])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_is_refused_is_an_error_of_its_own(status, start):
    server = start(embed)
    server.answers = [(status, {}, b'{"error": {"message": "too long"}}')]
    with pytest.raises(RefusedError, match=f"answers {status}: too long"):
        open_endpoint(server.url).embed(["a"])


def test_a_server_that_breaks_off_is_said(start):
    server = start(embed)
    server.answers = [(200, {"Content-Length": "100"}, b"{")]
    with pytest.raises(EndpointError, match="answers with|cannot be reached"):
        open_endpoint(server.url).embed(["a"])


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_whose_body_breaks_off_is_said_by_its_status(status, start):
    server = start(embed)
    cut = {"Content-Length": "100", "Connection": "close"}
    server.answers = [(status, cut, b'{"detail": "why"}')]
    with pytest.raises(EndpointError, match=f"answers {status}"):
        open_endpoint(server.url).embed(["a"])
