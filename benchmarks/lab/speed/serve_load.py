"""Many clients at once against one server, each reply checked against its own texts."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from retrieval.protocols import Vectors

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Pool:
    """Texts to send, with what the library gives for them.

    Attributes
    ----------
    tokens : of each text.
    vectors : float32 (N, D).
    """

    texts: list[str]
    tokens: list[int]
    vectors: Vectors


@dataclass(frozen=True)
class Load:
    """The clients, what they ask, and for how long.

    Attributes
    ----------
    most_texts : each request has between 1 and this many texts, chosen evenly.
    """

    clients: int
    seconds: float
    most_texts: int = 1
    seed: int = 0


@dataclass
class Outcome:
    """What came back.

    Attributes
    ----------
    wrong : replies with a vector that is not that of its own text, to 1e-5.
    broken : connections that ended without a reply.
    latencies : in seconds, one a request with status 200.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    broken: int = 0
    texts: int = 0
    tokens: int = 0
    worst_difference: float = 0.0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Throughput."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def __add__(self, other: Outcome) -> Outcome:
        """Return what came back in two runs, one after the other."""
        return Outcome(
            self.statuses + other.statuses,
            self.wrong + other.wrong,
            self.broken + other.broken,
            self.texts + other.texts,
            self.tokens + other.tokens,
            max(self.worst_difference, other.worst_difference),
            self.seconds + other.seconds,
            self.latencies + other.latencies,
        )

    def percentile(self, percent: float) -> float:
        """Return a percentile of the latencies in seconds."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


def run_load(port: int, pool: Pool, load: Load) -> Outcome:
    """Return what ``load.clients`` clients got from the server on a loopback port.

    Each client sends its next request when it has the answer to the last one.
    """
    return asyncio.run(_run(port, pool, load))


async def _run(port: int, pool: Pool, load: Load) -> Outcome:
    outcome = Outcome()
    started = time.monotonic()
    deadline = started + load.seconds
    await asyncio.gather(
        *(
            _run_client(port, pool, load, deadline, number, outcome)
            for number in range(load.clients)
        )
    )
    outcome.seconds = time.monotonic() - started
    return outcome


async def _run_client(
    port: int, pool: Pool, load: Load, deadline: float, number: int, outcome: Outcome
) -> None:
    rng = random.Random(f"{load.seed}-{number}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while time.monotonic() < deadline:
            chosen = rng.choices(range(len(pool.texts)), k=rng.randint(1, load.most_texts))
            started = time.monotonic()
            status, body = await _post(reader, writer, [pool.texts[index] for index in chosen])
            outcome.statuses[status] += 1
            if status == 200:
                outcome.latencies.append(time.monotonic() - started)
                _check(pool, chosen, body, outcome)
            else:
                await asyncio.sleep(0.1)
    except (OSError, EOFError):
        outcome.broken += 1
    finally:
        writer.close()


def _check(pool: Pool, chosen: list[int], body: bytes, outcome: Outcome) -> None:
    packed = [item["embedding"] for item in json.loads(body)["data"]]
    found = [np.frombuffer(base64.b64decode(text), dtype="<f4") for text in packed]
    expected = pool.vectors[chosen]
    if [row.shape for row in found] != [row.shape for row in expected]:
        outcome.wrong += 1
        return
    difference = float(np.abs(np.array(found) - expected).max())
    outcome.worst_difference = max(outcome.worst_difference, difference)
    outcome.wrong += not difference <= TOLERANCE
    outcome.texts += len(chosen)
    outcome.tokens += sum(pool.tokens[index] for index in chosen)


async def _post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: list[str]
) -> tuple[int, bytes]:
    """Send one request over a connection that stays open; return status and body.

    Written out, because a client library would take the processor from the server.
    """
    asked = {"input": texts, "encoding_format": "base64", "truncate": True}
    body = json.dumps(asked).encode()
    writer.write(
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = int(head.split(" ", 2)[1])
    headers = (line.partition(":") for line in head.split("\r\n")[1:])
    length = next(int(value) for name, _, value in headers if name.lower() == "content-length")
    return status, await reader.readexactly(length)
