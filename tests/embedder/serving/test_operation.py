"""Load, leaving clients, failures, stopping, health, metrics and logs."""

import asyncio
import json
import logging
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from embedder.serving import JsonFormatter
from tests.embedder.serving import fakes

ROOT = Path(__file__).resolve().parents[3]


def test_every_client_gets_its_own_vectors_whatever_the_mix(serve, encoder):
    """The encoder waits for a queue at first, so that texts of several clients are merged."""
    other = fakes.HashingEncoder("other", dimension=8)
    started = serve([fakes.make_model(encoder), fakes.make_model(other)], batch_tokens=60)
    encoders = {"hash": encoder, "other": other}

    async def ask(client, number):
        rng = random.Random(number)
        wrong = 0
        for turn in range(5):
            name, role = rng.choice(("hash", "other")), rng.choice(("query", "document"))
            texts = [
                " ".join([f"{number}-{turn}-{row}"] * rng.randint(1, 20))
                for row in range(rng.randint(1, 6))
            ]
            body = {"model": name, "input": texts, "input_type": role}
            answer = await client.post("/v1/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            found = [item["embedding"] for item in answer.json()["data"]]
            expected = [encoders[name].vector(text, role) for text in texts]
            wrong += not np.allclose(found, expected, atol=1e-6)
        return wrong

    async def run():
        async with httpx.AsyncClient(base_url=started.running.url, timeout=120) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(24)))

    def open_gate():
        fakes.wait_until(lambda: started.running.server.batcher.waiting_texts > 30)
        encoder.gate.set()

    encoder.gate.clear()
    opener = threading.Thread(target=open_gate)
    opener.start()
    assert asyncio.run(run()) == [0] * 24
    opener.join(120)
    clients = [{text.partition("-")[0] for text in texts} for _, texts in encoder.batches]
    assert max(len(merged) for merged in clients) > 1


def leave_while_waiting(port, body):
    """Send a request and close the connection without reading."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.sendall(
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return connection


def test_the_work_of_a_client_that_left_is_dropped(serve, encoder):
    client = serve()
    batcher = client.running.server.batcher
    encoder.gate.clear()
    held = threading.Thread(target=client.post, args=("/embed",), kwargs={"json": {"inputs": "x"}})
    held.start()
    assert encoder.entered.wait(120)
    connection = leave_while_waiting(client.running.port, {"inputs": ["gone"] * 3})
    fakes.wait_until(lambda: batcher.waiting_texts == 3)
    connection.close()
    fakes.wait_until(lambda: batcher.waiting_texts == 0)
    encoder.gate.set()
    held.join(120)
    assert client.post("/embed", json={"inputs": "next"}).status_code == 200
    assert all("gone" not in texts for _, texts in encoder.batches)
    fakes.wait_until(lambda: "millpond_dropped_requests_total 1.0" in client.get("/metrics").text)


def test_a_failing_request_is_a_500_and_its_neighbours_are_not(serve, encoder, caplog):
    client = serve()
    batcher = client.running.server.batcher
    encoder.gate.clear()
    answers = {}

    def ask(text):
        answers[text] = client.post("/v1/embeddings", json={"input": text})

    threads = [threading.Thread(target=ask, args=(text,)) for text in ("a", "poison", "exit", "b")]
    threads[0].start()
    assert encoder.entered.wait(120)
    for thread in threads[1:]:
        thread.start()
    fakes.wait_until(lambda: batcher.waiting_texts == 3)
    encoder.gate.set()
    for thread in threads:
        thread.join(120)
    statuses = {text: answer.status_code for text, answer in answers.items()}
    assert statuses == {"a": 200, "poison": 500, "exit": 500, "b": 200}
    error = answers["poison"].json()["error"]
    assert error["type"] == "server_error"
    assert answers["poison"].headers["X-Request-ID"] in error["message"]
    assert "the encoder cannot read poison" not in answers["poison"].text  # the log has it
    assert "the encoder cannot read poison" in caplog.text
    assert client.post("/v1/embeddings", json={"input": "c"}).status_code == 200


def test_stopping_answers_what_was_accepted(serve, encoder):
    client = serve(batch_tokens=1)
    batcher = client.running.server.batcher
    encoder.gate.clear()
    answers = []

    def ask(number):
        answers.append(client.post("/embed", json={"inputs": f"t{number}"}).status_code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    fakes.wait_until(lambda: batcher.waiting_texts == 4)  # and one is with the encoder
    client.running.ask_to_stop()
    encoder.gate.set()
    for thread in threads:
        thread.join(120)
    assert answers == [200] * 5
    client.running.stop()
    assert not batcher.alive
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{client.running.url}/health")


def test_a_terminated_process_ends_with_zero():
    command = [
        sys.executable,
        "-m",
        "benchmarks.lab.speed.serve_target",
        "millpond",
        "--model",
        "hash",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}/health"

        def is_ready():
            try:
                return httpx.get(url).status_code == 200
            except httpx.ConnectError:
                return False

        fakes.wait_until(is_ready)
        process.terminate()
        assert process.wait(120) == 0


def test_health_tells_live_from_ready(serve):
    client = serve()
    for path in ("/health", "/health/live", "/health/ready"):
        answer = client.get(path)
        indexes = {} if path == "/health/live" else {"indexes": []}
        told = {"live": True, "ready": True, **indexes}
        assert (answer.status_code, answer.json()) == (200, told)
    client.running.server.batcher.stop()
    for path, status in (("/health", 503), ("/health/live", 200), ("/health/ready", 503)):
        assert client.get(path).status_code == status


def test_metrics_count_what_happened(serve, searchable):
    client = serve([searchable.model], [searchable])
    client.post("/v1/embeddings", json={"input": ["one two", "three"]})
    client.post("/v1/search", json={"query": "four"})
    client.get("/nowhere/1")
    shown = client.get("/metrics").text
    for line in (
        'millpond_requests_total{route="/v1/embeddings",status="200"} 1.0',
        'millpond_requests_total{route="other",status="404"} 1.0',
        "millpond_batch_tokens_sum 4.0",  # 2 + 1 and 1 words
        "millpond_batch_texts_sum 3.0",
        "millpond_queue_wait_seconds_count 2.0",
        'millpond_search_seconds_count{index="years"} 1.0',
        'millpond_request_seconds_count{route="/v1/search"} 1.0',
        "millpond_queue_tokens 0.0",
        "millpond_queue_texts 0.0",
    ):
        assert line in shown.splitlines()


@pytest.mark.parametrize("given", ["job-17", None, "bad id", "x" * 129])
def test_every_answer_carries_an_id_the_clients_own_where_it_is_plain(serve, given):
    headers = {} if given is None else {"X-Request-ID": given}
    found = serve().get("/health", headers=headers).headers["X-Request-ID"]
    assert found == given if given == "job-17" else len(found) == 32


def test_the_log_is_json_without_texts(serve, caplog):
    caplog.set_level(logging.INFO, logger="millpond.serve")
    client = serve(keys=("secret-key",))
    client.post(
        "/v1/embeddings",
        json={"input": ["private words"]},
        headers={"X-Request-ID": "job-17", "Authorization": "Bearer secret-key"},
    )
    fakes.wait_until(lambda: "request" in caplog.messages)
    lines = [JsonFormatter().format(record) for record in caplog.records]
    found = next(line for line in map(json.loads, lines) if line["event"] == "request")
    assert {**found, "time": 0, "seconds": 0} == {
        "time": 0,
        "level": "info",
        "event": "request",
        "request_id": "job-17",
        "method": "POST",
        "path": "/v1/embeddings",
        "status": 200,
        "seconds": 0,
        "texts": 1,
        "tokens": 2,
    }
    assert not any("private" in line or "secret-key" in line for line in lines)


def test_the_log_shows_tracebacks_on_one_line():
    try:
        raise ValueError("broken")
    except ValueError as error:
        facts = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "It failed.", (), facts)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_unknown_paths_and_methods_are_errors_in_json(serve):
    client = serve()
    assert client.get("/v1/nothing").json()["error"]["message"] == "Not Found"
    assert client.get("/v1/embeddings").status_code == 405


def test_the_pages_load_nothing_from_elsewhere(serve):
    client = serve()
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert "//" not in page.text.replace("<!doctype html>", "")
    for said in ("POST /v1/embeddings", "encoding_format", "POST /embed", "Retry-After"):
        assert said in page.text
