"""Measures ``millpond serve`` under load, against the library and against a naive server.

    python -m benchmarks.lab.speed.serve --model millpond-135m,max_tokens=48 --clients 64

The texts are docstrings of the standard library, so their lengths are mixed. The library encodes
all of them in one call before and after each round, which gives the vectors that every reply is
checked against; a round is compared with the two calls beside it, since the machine's speed varies.
``--model hash`` tries the script without a model. Rates are in tokens per second, because clients
draw texts at random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.lab.speed.serve_load import Load, Outcome, Pool, run_load
from benchmarks.lab.speed.serve_target import encode_texts, load_model
from embedder.serving import ServedModel
from retrieval import read_corpus
from retrieval.errors import FailureError
from retrieval.protocols import Vectors

START_SECONDS = 300.0
MEMORY_INTERVAL_SECONDS = 1.0


@dataclass
class Process:
    """A server in a process of its own.

    Attributes
    ----------
    memory_bytes : resident memory, one sample per second.
    """

    port: int
    memory_bytes: list[int] = field(default_factory=list)

    def get(self, path: str) -> str:
        """Return the body of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            text: str = answer.read().decode()
            return text


def main() -> None:
    """Measure, print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="millpond-135m")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0, help="of all rounds")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--naive-seconds", type=float, default=30.0)
    parser.add_argument("--texts", type=int, default=512, help="how many different ones")
    parser.add_argument("--most-texts", type=int, default=1, help="in one request")
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    report = measure(options)
    for name, value in report.items():
        print(f"{name:24} {value}")
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    model = load_model(options.model)
    corpus = read_corpus("python-stdlib")
    texts = [document.content for document in islice(corpus, options.texts)]
    tokens = [len(row) for row in model.tokenize(texts, "document").rows]
    vectors, seconds = _time_library(model, texts)
    pool = Pool(texts, tokens, vectors)
    library = [sum(tokens) / seconds]
    rounds: list[Outcome] = []
    extra = [] if options.batch_tokens is None else ["--batch-tokens", str(options.batch_tokens)]
    with start_server("millpond", options.model, *extra) as ours:
        for number in range(options.rounds):
            share = options.seconds / options.rounds
            load = Load(options.clients, share, options.most_texts, seed=number)
            rounds.append(run_load(ours.port, pool, load))
            library.append(sum(tokens) / _time_library(model, texts)[1])
        batches = _read_metrics(ours.get("/metrics"))
    outcome = sum(rounds, Outcome())
    ratios = [
        2 * one.tokens_per_second / (before + after)
        for one, before, after in zip(rounds, library, library[1:], strict=False)
    ]
    with start_server("naive", options.model) as other:
        load = Load(options.clients, options.naive_seconds, options.most_texts)
        naive = run_load(other.port, pool, load)
    return {
        "model": options.model,
        "clients": options.clients,
        **_describe(outcome),
        **_describe_memory(ours.memory_bytes),
        "tokens_per_batch": round(batches["tokens"] / max(1.0, batches["batches"]), 1),
        "library_tokens_per_second": [round(rate, 1) for rate in library],
        "ratio_to_library": round(statistics.median(ratios), 3),
        "ratio_of_each_round": [round(ratio, 3) for ratio in ratios],
        "naive_tokens_per_second": round(naive.tokens_per_second, 1),
        "naive_wrong": naive.wrong,
        "ratio_to_naive": round(outcome.tokens_per_second / max(naive.tokens_per_second, 1e-9), 3),
    }


@contextmanager
def start_server(kind: str, model: str, *extra: str) -> Iterator[Process]:
    """Give a running server whose memory is sampled; it is stopped as a supervisor would."""
    command = [sys.executable, "-m", "benchmarks.lab.speed.serve_target", kind, "--model", model]
    child = subprocess.Popen([*command, *extra], stdout=subprocess.PIPE, text=True)
    finished = threading.Event()
    try:
        assert child.stdout is not None
        process = Process(int(child.stdout.readline() or 0))
        _wait_until_ready(process, child)
        watched = psutil.Process(child.pid)

        def sample() -> None:
            while not finished.wait(MEMORY_INTERVAL_SECONDS):
                process.memory_bytes.append(watched.memory_info().rss)

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        yield process
        finished.set()
        sampler.join()
    finally:
        finished.set()
        child.terminate()
        child.wait(timeout=60)
        if child.stdout is not None:
            child.stdout.close()


def _wait_until_ready(process: Process, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None and process.port:
        try:
            process.get("/health")
            return
        except OSError:
            time.sleep(0.05)
    raise FailureError(f"The server did not start within {START_SECONDS:g} s; see its messages.")


def _time_library(model: ServedModel, texts: list[str]) -> tuple[Vectors, float]:
    started = time.perf_counter()
    vectors = encode_texts(model, texts)
    return vectors, time.perf_counter() - started


def _describe(outcome: Outcome) -> dict[str, Any]:
    return {
        "seconds": round(outcome.seconds, 1),
        "replies": outcome.statuses[200],
        "wrong": outcome.wrong,
        "worst_difference": outcome.worst_difference,
        "answers_5xx": sum(n for status, n in outcome.statuses.items() if status >= 500),
        "answers_429": outcome.statuses[429],
        "broken_connections": outcome.broken,
        "texts_per_second": round(outcome.texts / outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens_per_second, 1),
        **{f"p{p}_seconds": round(outcome.percentile(p), 4) for p in (50, 95, 99)},
    }


def _describe_memory(samples: list[int]) -> dict[str, Any]:
    """Return resident memory in MB after a tenth of the time, at the end, and at most."""
    if not samples:
        return {"memory_mb": None}
    chosen = (samples[len(samples) // 10], samples[-1], max(samples))
    early, last, most = (round(value / 1e6, 1) for value in chosen)
    return {"memory_mb": {"early": early, "last": last, "most": most}}


def _read_metrics(text: str) -> dict[str, float]:
    """Return the number of batches and their tokens."""
    values = dict(line.split(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {
        "batches": float(values["millpond_batch_tokens_count"]),
        "tokens": float(values["millpond_batch_tokens_sum"]),
    }


if __name__ == "__main__":
    main()
