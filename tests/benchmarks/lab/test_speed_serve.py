"""The load script, on the hashing encoder in place of a model."""

import argparse

import numpy as np
import pytest

from benchmarks.lab.speed.serve import measure, start_server
from benchmarks.lab.speed.serve_load import Load, Pool, run_load
from benchmarks.lab.speed.serve_target import DRY_RUN, encode_texts, load_model


def make_pool(count=20):
    model = load_model(DRY_RUN)
    texts = [f"text {number} " * (1 + number % 5) for number in range(count)]
    tokens = [len(row) for row in model.tokenize(texts, "document").rows]
    return Pool(texts, tokens, encode_texts(model, texts))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["millpond", "naive"])
def test_replies_are_checked_against_their_own_texts(kind):
    pool = make_pool()
    swapped = Pool(pool.texts, pool.tokens, np.roll(pool.vectors, 1, axis=0))
    with start_server(kind, DRY_RUN) as server:
        good = run_load(server.port, pool, Load(clients=4, seconds=0.5, most_texts=3))
        bad = run_load(server.port, swapped, Load(clients=4, seconds=0.5, most_texts=3))
    assert good.statuses[200] == len(good.latencies) > 0
    assert (good.wrong, good.broken, good.worst_difference) == (0, 0, 0.0)
    assert good.texts >= good.statuses[200]
    assert bad.wrong == bad.statuses[200] > 0


@pytest.mark.slow
def test_a_measurement_reports_every_figure():
    options = argparse.Namespace(
        model=DRY_RUN,
        clients=3,
        seconds=1.5,
        rounds=3,
        naive_seconds=0.5,
        texts=10,
        most_texts=2,
        batch_tokens=64,
    )
    report = measure(options)
    assert (report["wrong"], report["answers_5xx"], report["naive_wrong"]) == (0, 0, 0)
    assert report["replies"] > 0
    assert report["p50_seconds"] <= report["p95_seconds"] <= report["p99_seconds"]
    assert len(report["ratio_of_each_round"]) == 3
    assert len(report["library_tokens_per_second"]) == 4
    assert sorted(report["ratio_of_each_round"])[1] == report["ratio_to_library"] > 0
    assert report["ratio_to_naive"] > 0
    assert report["memory_mb"]["most"] >= report["memory_mb"]["last"] > 0
    assert report["tokens_per_batch"] >= 1
