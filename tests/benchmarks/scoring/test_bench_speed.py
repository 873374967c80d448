"""``millpond bench --speed``: int8 models are other models, in results, in caches, in company."""

import pytest

from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.runner import run_benchmark
from retrieval.errors import UsageError
from tests.benchmarks import fakes
from tests.embedder.stand_ins import set_int8

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")

SCORING = "Scoring "


@pytest.fixture
def data(tmp_path):
    return fakes.write_all(tmp_path / "data")


@pytest.fixture
def bench(data, tmp_path, monkeypatch):
    """Run models on all tasks, where int8 can be had or not; return results and lines."""

    def run(models, *, speed, int8=True, out="out"):
        set_int8(monkeypatch, int8)
        lines = []
        config = BenchConfig(
            models=models, tasks=[str(data)], out=tmp_path / out, device="cpu", speed=speed
        )
        return run_benchmark(config, notify=lines.append), lines

    return run


def layers(results):
    return {result.fingerprint.settings.get("linear_layers") for result in results}


def scored(lines):
    return sum(line.startswith(SCORING) for line in lines)


def test_exact_and_fast_are_two_models_and_each_is_scored_once(bench, tiny_base):
    name = f"{tiny_base}:mean+causal"
    exact, lines = bench([name], speed="exact")
    assert (layers(exact), scored(lines)) == ({None}, len(exact))
    fast, lines = bench([name], speed="fast")  # the exact model is remembered by its name
    assert (layers(fast), scored(lines)) == ({"int8 turned"}, len(exact))
    _, lines = bench([name], speed="fast")
    assert scored(lines) == 0
    again, lines = bench([name], speed="exact")  # and int8 is not what the name means since
    assert (layers(again), scored(lines)) == ({None}, len(exact))
    assert [one.metrics for one in again] == [one.metrics for one in exact]


def test_without_int8_fast_reads_the_exact_scores_and_says_why(bench, tiny_base):
    name = f"{tiny_base}:mean+causal"
    exact, _ = bench([name], speed="exact")
    fast, lines = bench([name], speed="fast", int8=False)
    assert (fast, scored(lines)) == (exact, 0)
    assert sum("needs AVX512-VNNI" in line for line in lines) == 1


def test_models_that_share_int8_layers_share_a_pass_and_say_so(bench, tiny_base):
    """One pass for both; each alone computes the same in other batches, rounded once more."""
    names = [f"{tiny_base}:{variant},max_tokens=32" for variant in ("mean+causal", "model2")]
    together, lines = bench(names, speed="fast", out="together")
    assert layers(together) == {"int8 turned"}
    assert any("in the same pass" in line and names[1] in line for line in lines)
    alone = [one for name in names for one in bench([name], speed="fast", out="alone")[0]]
    assert [one.run_digest for one in together] == [one.run_digest for one in alone]
    exact, _ = bench([names[1]], speed="exact", out="together")
    assert layers(exact) == {None}


def test_an_unknown_speed_is_refused(tmp_path):
    with pytest.raises(UsageError, match="speed is 'quick'; expected exact or fast"):
        BenchConfig(models=["m"], tasks=["t"], out=tmp_path, speed="quick")
