"""Clients that mean harm: whatever one of them sends, others are still answered."""

import socket
import threading

import httpx
import pytest

from embedder.serving.bodies import count_values, read_json
from embedder.serving.errors import ApiError
from tests.embedder.serving import fakes

JSON = {"Content-Type": "application/json"}
SIZE = 8_000_000

BODIES = {
    "one-token lists": ("/v1/embeddings", b'{"input": [' + b"[1]," * (SIZE // 4) + b"[1]]}", 413),
    "token ids": ("/v1/embeddings", b'{"input": [' + b"1," * (SIZE // 2) + b"1]}", 413),
    "unknown keys": (
        "/v1/embeddings",
        b"{" + b",".join(b'"k%d":1' % number for number in range(SIZE // 12)) + b"}",
        413,
    ),
    "some unknown keys": (
        "/embed",
        b"{" + b",".join(b'"k%d":1' % number for number in range(60_000)) + b"}",
        422,
    ),
    "nested lists": ("/embed", b"[" * SIZE, 413),
    "deep lists": ("/embed", b"[" * 100_000 + b"]" * 100_000, 422),
    "a long number": ("/embed", b'{"inputs": ' + b"1" * SIZE + b"}", 422),
    "quotes": ("/embed", b'"' * SIZE, 413),
    "escapes": ("/embed", b'{"inputs": "' + b'\\"' * (SIZE // 2 - 20) + b'"}', 200),
    "a filter of numbers": (
        "/v1/search",
        b'{"query": "x", "filter": "year in [' + b"1," * (SIZE // 2 - 40) + b'1]"}',
        413,
    ),
    "a shorter filter of numbers": (
        "/v1/search",
        b'{"query": "x", "filter": "year in [' + b"1," * 400_000 + b'1]"}',
        400,
    ),
    "a filter of parentheses": (
        "/v1/search",
        b'{"query": "x", "filter": "' + b"(" * 1_000_000 + b'"}',
        400,
    ),
    "a vector of texts": (
        "/v1/search",
        b'{"vector": [' + b'"a",' * 100_000 + b'"a"]}',
        400,
    ),
    "mixed": ("/v1/embeddings", b'{"input": [' + b'"a",1,' * 60_000 + b"[]]}", 400),
    "not UTF-8": ("/v1/embeddings", b'{"input": "' + b"\xff" * SIZE + b'"}', 400),
}


def post(client, name):
    path, body, _ = BODIES[name]
    return client.post(path, content=body, headers=JSON)


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_in_words(serve, searchable, name):
    answer = post(serve([searchable.model], [searchable], body_bytes=SIZE + 30), name)
    assert answer.status_code == BODIES[name][2], answer.text[:300]


def test_health_answers_beside_twenty_hostile_bodies(serve, searchable):
    client = serve([searchable.model], [searchable])
    names = (list(BODIES) * 2)[:20]
    statuses = []
    threads = [
        threading.Thread(target=lambda name=name: statuses.append(post(client, name).status_code))
        for name in names
    ]
    for thread in threads:
        thread.start()
    asked = 0
    with httpx.Client(base_url=client.running.url, timeout=10) as other:
        while any(thread.is_alive() for thread in threads):
            assert other.get("/health").status_code == 200
            asked += 1
    for thread in threads:
        thread.join(120)
    assert asked
    assert len(statuses) == 20
    assert max(statuses) < 500
    assert client.post("/embed", json={"inputs": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'"a, b [c] {d}"', 0),  # commas and brackets of a text are no values
        (b'["a", "b, c"]', 2),  # a bracket and a comma
        (rb'["a\", b", "c\\", 1]', 3),  # \" ends no text, and \\" does
        (rb'["\\\", ,", 2]', 2),
        (b'{"a": 1, "b": [2, 3]}', 4),
    ],
)
def test_values_are_counted_without_reading_them(body, expected):
    assert count_values(body, 0 if body.count(b'"') == 0 else body.count(b'"') // 2) == expected


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"a": 1, "b": [2, 3]}', 200, ""),
        (b'{"a": "1, 2, 3, 4, 5, 6, 7"}', 200, ""),
        (b"[1, 2, 3, 4, 5, 6]", 413, "more than 5 values"),
        (b'{"a"', 400, "not JSON in UTF-8"),
        ('["é"]'.encode("utf-16"), 400, "not JSON in UTF-8"),
        (b"[" * 5000, 413, "more than 5 values"),
    ],
)
def test_bodies_are_read_up_to_a_number_of_values(body, status, says):
    if status == 200:
        assert isinstance(read_json(body, 5), dict)
        return
    with pytest.raises(ApiError) as refused:
        read_json(body, 5)
    assert refused.value.status == status
    assert says in refused.value.message


def connect(client):
    return socket.create_connection(("127.0.0.1", client.running.port), timeout=120)


def is_closed(connection):
    """Whether the server has closed it, after what it may have answered before."""
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_idle_connections_give_way_to_new_ones(serve):
    client = serve(connections=8)
    idle = [connect(client) for _ in range(40)]
    for _ in range(3):
        assert httpx.get(f"{client.running.url}/health").status_code == 200
    assert is_closed(idle[0])  # the oldest of them
    for connection in idle:
        connection.close()


def test_a_connection_that_is_being_answered_stays(serve, encoder):
    client = serve(connections=4)
    encoder.gate.clear()
    answers = []
    held = threading.Thread(
        target=lambda: answers.append(client.post("/embed", json={"inputs": "x"}).status_code)
    )
    held.start()
    assert encoder.entered.wait(120)
    idle = [connect(client) for _ in range(20)]
    assert httpx.get(f"{client.running.url}/health").status_code == 200
    encoder.gate.set()
    held.join(120)
    assert answers == [200]
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_request_that_never_comes_ends_its_connection(serve, sent):
    client = serve(head_seconds=1)
    with connect(client) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


def test_a_head_without_end_is_refused(serve):
    client = serve()
    with connect(client) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        answer = b""
        try:
            for number in range(100):
                connection.sendall(b"X-%d: " % number + b"x" * 10_000 + b"\r\n")
            answer = connection.recv(1000)
        except OSError:  # closed while it was still sending
            pass
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert is_closed(connection)
    assert client.get("/health").status_code == 200


def test_connections_are_kept_between_requests(serve):
    client = serve(connections=2)
    with connect(client) as connection:
        for _ in range(3):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200 ")
        two = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2
        connection.sendall(two)
        answer = b""
        while answer.count(b'{"live":true,"ready":true}') < 2:
            answer += connection.recv(10_000)
        assert answer.count(b"HTTP/1.1 200 ") == 2


def test_bodies_that_would_take_too_much_memory_together_are_429(serve):
    client = serve(held_bytes=1000)
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with connect(client) as slow:
        slow.sendall(head + b"Content-Length: 2000\r\n\r\n" + b"x" * 900)
        body = {"inputs": "x" * 200}
        fakes.wait_until(lambda: client.post("/embed", json=body).status_code == 429)
        refused = client.post("/embed", json=body)
        assert refused.headers["Retry-After"] == "1"
        assert client.get("/health").status_code == 200
    fakes.wait_until(lambda: client.post("/embed", json=body).status_code == 200)


def test_a_long_search_is_refused_by_its_route(serve, searchable):
    client = serve([searchable.model], [searchable], search_body_bytes=1000)
    long = {"query": "x" * 2000}
    answer = client.post("/v1/search", json=long)
    assert answer.status_code == 413
    assert "1,000 bytes" in answer.json()["error"]["message"]
    assert client.post("/embed", json={"inputs": "x" * 2000}).status_code == 200
