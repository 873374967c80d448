"""Clients of a server, half of them hostile: the others get the right vectors all along."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import uvicorn

from benchmarks.lab.attack.common import MODEL, Attack, Tally, make_documents
from embedder.serving import (
    Role,
    ServedIndex,
    ServedModel,
    Server,
    ServerSettings,
    build_app,
    make_config,
)
from embedder.serving.served import Row, RowEncoder, Tokens
from indexes import Index
from retrieval import Vectors

Post = Callable[[str, bytes], tuple[int, str]]
JSON = {"Content-Type": "application/json"}
MOST_GROWTH = 1.1
WARM_UP_SECONDS = 5.0
MAX_TOKENS = 512


def serve_hashes() -> ServedModel:
    """Return the hashing model as a server takes it, which reads a token a word."""

    def tokenize(texts: Sequence[str], role: Role) -> Tokens:
        counts = [max(1, len(text.split())) for text in texts]
        rows = [Row(text, min(n, MAX_TOKENS)) for text, n in zip(texts, counts, strict=True)]
        return Tokens(rows, [n > MAX_TOKENS for n in counts])

    def encode(rows: Sequence[Row]) -> Vectors:
        return MODEL.encode_documents([row.content for row in rows])

    encoder = RowEncoder(MODEL.dimension, MODEL.fingerprint, encode)
    return ServedModel("hash", encoder, tokenize, max_tokens=MAX_TOKENS)


def _make_server(index: Index) -> Server:
    model = serve_hashes()
    settings = ServerSettings(body_seconds=5.0, head_seconds=5.0)
    return Server([model], [ServedIndex("i", index, model)], settings)


@contextmanager
def serving(index: Index) -> Iterator[Post]:
    """Serve an index from a thread, and yield what posts a body and returns status and text."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(make_config(build_app(_make_server(index))))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=120) as client:

        def post(path: str, body: bytes) -> tuple[int, str]:
            answer = client.post(path, content=body, headers=JSON)
            return answer.status_code, answer.text

        yield post
    server.should_exit = True
    thread.join()
    listener.close()


class _Clients:
    """What clients do until they are told to end, and what they saw."""

    def __init__(self, port: int, tally: Tally) -> None:
        self.port, self.tally = port, tally
        self.ended = threading.Event()
        self._lock = threading.Lock()

    def note(self, test: str, failure: str = "") -> None:
        """Count one request."""
        with self._lock:
            self.tally.add(test, failure)

    def ask(self, seed: int) -> None:
        """Ask for vectors and hits, and compare them with the right ones."""
        draw = random.Random(seed)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120) as client:
            while not self.ended.is_set():
                text = f"text {draw.randrange(25)} of d"
                vector = MODEL.encode_queries([text])[0]
                if draw.random() < 0.5:
                    answer = client.post("/embed", json={"inputs": text})
                    right = answer.status_code == 200 and np.allclose(
                        answer.json()[0], vector, atol=1e-5
                    )
                else:
                    body = {"query": text, "mode": "dense", "k": 1}
                    answer = client.post("/v1/search", json=body)
                    right = answer.status_code == 200 and answer.json()["hits"][0]["text"] == text
                wrong = f"{answer.status_code}: {answer.text[:200]}"
                self.note("honest requests", "" if right or answer.status_code == 429 else wrong)

    def annoy(self, seed: int) -> None:
        """Send what no client should."""
        draw = random.Random(seed)
        attacks = list(ATTACKS.items())
        while not self.ended.is_set():
            name, make = draw.choice(attacks)
            failure = ""
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10) as one:
                one.settimeout(10)
                head = make(one, draw)
                failure = head.decode("latin-1") if head.startswith(b"HTTP/1.1 5") else ""
            self.note(name, failure)


def _post(body: bytes, length: int | None = None, path: str = "/v1/search") -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + body


def _send(content: bytes) -> Callable[[socket.socket, random.Random], bytes]:
    def run(one: socket.socket, draw: random.Random) -> bytes:
        one.sendall(content)
        return one.recv(64)

    return run


def _send_slowly(one: socket.socket, draw: random.Random) -> bytes:
    for byte in _post(b'{"query": "x"}')[: draw.randint(1, 60)]:
        one.sendall(bytes([byte]))
        time.sleep(0.05)
    return b""


def _close_half(one: socket.socket, draw: random.Random) -> bytes:
    one.sendall(_post(b'{"query": "text"}', draw.choice([None, 40])))
    one.shutdown(socket.SHUT_WR)
    return one.recv(64)


def _leave(one: socket.socket, draw: random.Random) -> bytes:
    one.sendall(draw.choice([b"", b"GET", _post(b'{"query": "text"}')]))
    return b""


ATTACKS: dict[str, Callable[[socket.socket, random.Random], bytes]] = {
    "slow senders": _send_slowly,
    "half-closed connections": _close_half,
    "connections opened and left": _leave,
    "too short a length": _send(_post(b'{"query": "text"}', 3)),
    "too long a length": _send(_post(b'{"query": "text"}', 400)),
    "negative length": _send(_post(b"", -5)),
    "invalid UTF-8": _send(_post(b'{"query": "\xff\xfe"}')),
    "NaN": _send(_post(b'{"vector": [' + b"NaN," * 15 + b"Infinity]}")),
    "k = 10^9": _send(_post(b'{"query": "text", "k": 1000000000}')),
    "no HTTP": _send(bytes(range(256))),
    "a long filter": _send(_post(b'{"query": "x", "filter": "' + b"(" * 60_000 + b'"}')),
    "many values": _send(_post(b'{"input": [' + b"1," * 200_000 + b"1]}", path="/v1/embeddings")),
}


def attack_by_load(attack: Attack) -> Tally:
    """Let ``count`` clients, half of them hostile, use one server for ``seconds``."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="millpond-serve-") as scratch:
        folder = Path(scratch) / "i"
        Index.create(folder, MODEL, make_documents(25))
        command = [sys.executable, "-m", "benchmarks.lab.attack.serve", str(folder)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            clients = _Clients(int(process.stdout.readline()), tally)
            threads = [
                threading.Thread(
                    target=clients.annoy if number % 2 else clients.ask,
                    args=[attack.seed * 1000 + number],
                )
                for number in range(attack.count)
            ]
            for thread in threads:
                thread.start()
            watched = psutil.Process(process.pid)
            warm = min(WARM_UP_SECONDS, attack.seconds / 4)
            time.sleep(warm)
            before = watched.memory_info().rss
            time.sleep(max(0.0, attack.seconds - warm))
            clients.ended.set()
            for thread in threads:
                thread.join()
            time.sleep(1)
            after = watched.memory_info().rss
            growth = f"{before / 2**20:.0f} MiB before and {after / 2**20:.0f} MiB after"
            tally.add(f"memory: {growth}", growth if after > MOST_GROWTH * before else "")
            ended = process.poll()
            tally.add("the server lives", "" if ended is None else f"it ended with {ended}")
            process.terminate()
    return tally


def main() -> None:
    """Serve the index that is named, and print the port."""
    from embedder.serving import run_app

    listener = socket.create_server(("127.0.0.1", 0))
    server = _make_server(Index.open(sys.argv[1]))
    server.warm_up()
    print(listener.getsockname()[1], flush=True)
    run_app(build_app(server), listener)


if __name__ == "__main__":
    main()
