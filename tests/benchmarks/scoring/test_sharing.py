"""Models over one base: embedded in one pass by ``millpond bench``, scored as each alone."""

import numpy as np
import pytest

from benchmarks.scoring.cache import KeptVectors, Work
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.models import LoadedModel
from benchmarks.scoring.results import read_results
from benchmarks.scoring.runner import run_benchmark
from benchmarks.scoring.sharing import find_sharers
from tests.benchmarks import fakes

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")

CAUSAL = ("model1", "model2", "model3", "mean+causal")
BIDIRECTIONAL = ("model4", "model5")


@pytest.fixture
def names(tiny_base):
    """Model names over the tiny base, by variant."""
    return {name: f"{tiny_base}:{name},max_tokens=32" for name in (*CAUSAL, *BIDIRECTIONAL)}


@pytest.fixture
def data(tmp_path):
    return fakes.write_all(tmp_path / "data")


@pytest.fixture
def forwards(monkeypatch):
    """Count the forward passes over more than one text."""
    from embedder.engine.backbone import Backbone

    counts = []
    real = Backbone.read

    def counting(self, batch, layers):
        counts.append(sum(group.texts for group in batch.groups))
        return real(self, batch, layers)

    monkeypatch.setattr(Backbone, "read", counting)
    return counts


def bench(models, data, out):
    lines = []
    config = BenchConfig(models=models, tasks=[str(data)], out=out)
    return run_benchmark(config, notify=lines.append), lines


def test_who_shares_with_whom(names, tmp_path):
    models = [*names.values(), "bm25", "st:x", "no-such", "millpond-135m", f"{tmp_path}:eos+causal"]
    found = find_sharers(models)
    for group in (CAUSAL, BIDIRECTIONAL):
        for name in group:
            assert found[names[name]] == [names[other] for other in group if other != name]
    assert all(found[name] == [] for name in models[len(names) :])


@pytest.mark.slow
def test_shared_passes_give_the_scores_of_each_model_alone(names, data, tmp_path, forwards):
    together, lines = bench(list(names.values()), data, tmp_path / "together")
    shared = sum(count > 1 for count in forwards)
    forwards.clear()
    alone = []
    for name in names.values():
        alone += bench([name], data, tmp_path / "alone")[0]
    assert shared * 3 == sum(count > 1 for count in forwards)  # two groups for six models
    assert any("in the same pass" in line and names["mean+causal"] in line for line in lines)
    assert [(r.model, r.task, r.run_digest) for r in together] == [
        (r.model, r.task, r.run_digest) for r in alone
    ]
    for one, other in zip(together, alone, strict=True):
        for metric, value in other.metrics.items():
            assert one.metrics[metric] == pytest.approx(value, abs=1e-6), (one.model, metric)
        assert one.costs["tokens_per_second"] > 0
    by_run = {(r.model, r.task): r.costs for r in together}
    for task in {r.task for r in together}:
        first, second = (by_run[names[n], task]["tokens_per_second"] for n in CAUSAL[:2])
        assert first == pytest.approx(second, rel=1e-6)  # one pass counts in full for both


@pytest.mark.slow
def test_nothing_waits_when_all_are_done_and_finished_runs_are_left_out(
    names, data, tmp_path, forwards
):
    out = tmp_path / "results"
    bench([names["model2"]], data, out)
    before = {r.task: r.created for r in read_results(out)}
    bench([names["model1"], names["model2"]], data, out)
    assert {r.task: r.created for r in read_results(out) if "model2" in r.model} == before
    assert not (out / ".cache" / "shared").exists()  # no vector was made for model2
    bench([names["model1"], names["model3"]], data, out)
    assert not (out / ".cache" / "shared").exists()  # model1 is finished, model3 is alone
    bench([names["mean+causal"], f"{names['model2']},seed=5"], data, out)
    assert list((out / ".cache" / "shared").iterdir()) == []


def test_a_pass_made_for_another_model_counts_in_full(data, tmp_path, monkeypatch):
    def take(self, model, side, texts):
        return model.encoder.encode_queries(texts), Work(None, 1e6, 1e6, 1 << 50)

    monkeypatch.setattr(KeptVectors, "take", take)
    config = BenchConfig(models=["one"], tasks=[str(data)], out=tmp_path / "results")
    for result in run_benchmark(config, load=fakes.Models()):
        # documents and queries are two passes, the texts of other task types one
        passes = 2 if result.task_type == "retrieval" else 1
        if result.task_type != "classification":
            assert 1e6 * passes < result.costs["seconds"] < 1e6 * passes + 1e5
        assert result.costs["peak_memory_bytes"] == 1 << 50
        assert result.costs["tokens_per_second"] < 1


def test_vectors_are_taken_once_and_damage_is_passed_over(tmp_path):
    store = KeptVectors(tmp_path / "shared")
    model = LoadedModel(fakes.WordEncoder("one"))
    texts = ["still water", "mill"]
    vectors = model.encoder.encode_documents(texts)
    work = Work(None, 1.5, 1.5, 1 << 20)
    store.keep(model, "document", texts, vectors, work)
    assert store.take(model, "query", texts) is None
    assert store.take(model, "document", texts[::-1]) is None
    assert store.take(LoadedModel(fakes.WordEncoder("two")), "document", texts) is None
    found, cost = store.take(model, "document", texts)
    assert cost == work
    np.testing.assert_array_equal(found, vectors)
    assert store.take(model, "document", texts) is None
    assert list((tmp_path / "shared").iterdir()) == []
    store.keep(model, "document", texts, vectors, work)
    (path,) = (tmp_path / "shared").glob("*.npy")
    path.write_bytes(path.read_bytes()[:200])
    assert store.take(model, "document", texts) is None
