import socket
import threading

import pytest

from embedder.serving import ServerSettings, is_loopback, parse_keys, read_keys
from retrieval.errors import SourceNotFoundError, UsageError
from tests.embedder.serving import fakes

KEYS = ("first-key", "second-key")


def test_a_full_queue_is_429_with_the_seconds_to_wait(serve, encoder):
    client = serve(queue_tokens=2)
    batcher = client.running.server.batcher
    encoder.gate.clear()
    waiting = [
        threading.Thread(target=client.post, args=("/embed",), kwargs={"json": body})
        for body in ({"inputs": "held"}, {"inputs": "waits here"})
    ]
    waiting[0].start()
    assert encoder.entered.wait(120)
    waiting[1].start()
    fakes.wait_until(lambda: batcher.waiting_tokens == 2)
    refused = client.post("/v1/embeddings", json={"input": "no room"})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert client.post("/embed", json={"inputs": "x"}).json()["error_type"] == "Overloaded"
    encoder.gate.set()
    for thread in waiting:
        thread.join(120)
    assert client.post("/v1/embeddings", json={"input": "room"}).status_code == 200


def test_too_many_requests_at_a_time_are_429(serve, encoder):
    client = serve(queue_requests=1)
    encoder.gate.clear()
    held = threading.Thread(target=client.post, args=("/embed",), kwargs={"json": {"inputs": "x"}})
    held.start()
    assert encoder.entered.wait(120)
    assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 429
    encoder.gate.set()
    held.join(120)
    assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_413_whether_its_length_is_announced_or_not(serve, chunked):
    client = serve(body_bytes=1000)
    head, tail = b'{"inputs": "', b'"}'
    for length, status in ((1000, 200), (1001, 413)):
        body = head + b"x" * (length - len(head) - len(tail)) + tail
        answer = client.post(
            "/embed",
            content=iter([body[:500], body[500:]]) if chunked else body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == status
    assert "1,000 bytes" in answer.json()["error"]


def test_a_body_that_never_arrives_is_408(serve):
    client = serve(body_seconds=1)
    with socket.create_connection(("127.0.0.1", client.running.port), timeout=120) as connection:
        connection.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/indexes", "/info", "/api/tags", "/metrics"])
def test_with_keys_only_their_bearers_get_in(serve, path):
    client = serve(keys=KEYS)
    for key in KEYS:
        answer = client.get(path, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200
    for header in ({}, {"Authorization": "Bearer first-ke"}, {"Authorization": "Basic first-key"}):
        refused = client.get(path, headers=header)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_posts_are_refused_before_their_body_is_read(serve):
    client = serve(keys=KEYS, body_bytes=10)
    for path in ("/v1/embeddings", "/v1/search", "/similarity", "/tokenize", "/", "/embed"):
        refused = client.post(path, json={"input": "longer than ten bytes"})
        assert refused.status_code == 401
    assert refused.json()["error_type"] == "Unauthorized"


def test_what_holds_no_secret_needs_no_key(serve):
    client = serve(keys=KEYS)
    for path in ("/", "/docs", "/openapi.json", "/health", "/static/docs.css"):
        assert client.get(path).status_code == 200


def test_keys_are_lines_of_a_file(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_text("# for the nightly job\nfirst-key\n\n  second-key  \n")
    assert read_keys(path) == KEYS
    for text, says in (("# none\n", "holds no key"), ("two words\n", "key 1 has a blank")):
        path.write_text(text)
        with pytest.raises(UsageError, match=says):
            read_keys(path)
    with pytest.raises(SourceNotFoundError, match="--keys"):
        read_keys(tmp_path / "absent")


def test_keys_show_nowhere():
    assert "first-key" not in repr(ServerSettings(keys=parse_keys(KEYS, "a test")))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("myhost", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host, expected):
    assert is_loopback(host) is expected


def test_other_origins_are_let_in_only_when_named(serve):
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed = serve()
    assert "access-control-allow-origin" not in closed.get("/health", headers=asked).headers
    assert closed.options("/v1/search", headers=asked).status_code == 405
    opened = serve(origins=("https://a.example",), keys=KEYS)
    preflight = opened.options("/v1/search", headers=asked)
    assert preflight.status_code == 200  # a browser sends no key with it
    assert preflight.headers["access-control-allow-origin"] == "https://a.example"
    other = opened.get("/health", headers={"Origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8400", 200),
        ("LOCALHOST:8400", 200),
        ("127.0.0.1", 200),
        ("[::1]:8400", 200),
        ("rebound.example:8400", 403),
        ("127.0.0.1.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
def test_a_local_server_answers_to_no_other_name(serve, host, status):
    client = serve(local_only=True)
    assert client.get("/v1/models", headers={"Host": host}).status_code == status
    assert serve().get("/v1/models", headers={"Host": host}).status_code == 200


def test_settings_below_one_are_refused():
    with pytest.raises(UsageError, match="queue_tokens is 0"):
        ServerSettings(queue_tokens=0)


@pytest.mark.parametrize("route", ["/v1/embeddings", "/embed", "/api/embed", "/v1/search"])
@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_that_is_not_called_json_says_which_header_is_missing(serve, route, kind):
    client = serve()
    headers = {} if kind is None else {"Content-Type": kind}
    refused = client.post(route, content=b'{"input": "x", "inputs": "x"}', headers=headers)
    assert refused.status_code in (400, 422)
    assert "Content-Type: application/json" in refused.text
