import json
import math
import os

import numpy as np
import pytest

from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import read_hits, read_result, read_results, result_path
from benchmarks.scoring.runner import run_benchmark
from retrieval.errors import FailureError, RecordError, UnknownNameError, UsageError
from tests.benchmarks import fakes

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")


@pytest.fixture
def bench(tmp_path):
    """Run a benchmark into one folder, with stand-ins for models that count their calls."""

    class Bench:
        out = tmp_path / "results"

        def __init__(self):
            self.lines, self.failures = [], []

        def __call__(self, models, *tasks, make=fakes.WordEncoder, sources=(), **settings):
            self.models = fakes.Models(make, sources)
            self.lines, self.failures = [], []
            config = BenchConfig(
                models=models, tasks=[str(task) for task in tasks], out=self.out, **settings
            )
            return run_benchmark(
                config,
                notify=self.lines.append,
                on_failure=self.failures.append,
                load=self.models,
            )

    return Bench()


@pytest.fixture
def data(tmp_path):
    return fakes.write_all(tmp_path / "data")


def test_every_run_is_scored_and_kept_models_first(bench, data):
    results = bench(["one", "two"], data)
    names = ["ponds", "wetness", "weather", "pairs"]
    assert [(r.model, r.task) for r in results] == [(m, t) for m in ("one", "two") for t in names]
    assert read_results(bench.out) == sorted(results, key=lambda r: (r.model, r.task))
    assert bench.models.loaded == ["one", "two"]
    ponds = results[0]
    # q1 shares both words with b alone and q2 with c alone, so both are found first
    assert ponds.metrics["ndcg@10"] == ponds.metrics["mrr@10"] == 1
    assert ponds.settings == {
        "protocol": 2,
        "k": 10,
        "depth": 100,
        "backend": "faiss",
        "factory": "Flat",
    }
    assert ponds.item_ids == ["q1", "q2"]
    assert ponds.data["documents"] == 3
    hits = list(read_hits(bench.out, "one", "ponds"))
    assert [one.hits[0].doc_id for one in hits] == ["b", "c"]
    assert hits[1].hits[0].relevance == 2


def test_costs_are_measured(bench, data):
    ponds, _, _, pairs = bench(["one"], data)
    for result in (ponds, pairs):
        assert result.costs["parameters"] == 7
        assert result.costs["seconds"] > 0
        assert result.costs["tokens_per_second"] > 0
        assert result.costs["peak_memory_bytes"] > 1e6
    assert 0 < ponds.costs["query_p50_seconds"] <= ponds.costs["query_p95_seconds"]
    assert ponds.costs["index_bytes"] > 0
    assert "query_p50_seconds" not in pairs.costs


def test_finished_runs_are_read_back_and_the_model_is_not_loaded(bench, data):
    first = bench(["one"], data)
    again = bench(["one"], data)
    assert again == first
    assert bench.models.loaded == []


def test_a_model_whose_files_changed_is_loaded_and_scored_again_only_where_it_is_another(
    bench, data, tmp_path
):
    weights = tmp_path / "weights"
    weights.write_text("1")
    bench(["one"], data, sources=[weights])
    weights.write_text("12")
    bench(["one"], data, sources=[weights])
    assert bench.models.loaded == ["one"]  # loaded, but its fingerprint is the same one
    assert bench.models.calls == []
    os.utime(weights, ns=(1, 1))
    bench(["one"], data, sources=[weights])
    assert bench.models.loaded == ["one"]
    bench(["one"], data, sources=[weights])
    assert bench.models.loaded == []


def test_a_model_whose_files_are_not_known_is_loaded_each_time(bench, data):
    bench(["one"], data, sources=None)
    bench(["one"], data, sources=None)
    assert bench.models.loaded == ["one"]
    assert bench.models.calls == []


def test_another_fingerprint_is_computed_anew(bench, data, tmp_path):
    weights = tmp_path / "weights"
    weights.write_text("1")
    old = bench(["one"], data / "sts", sources=[weights])
    weights.write_text("12")
    new = bench(
        ["one"], data / "sts", sources=[weights], make=lambda name: fakes.WordEncoder("other")
    )
    assert bench.models.calls != []
    assert new[0].run_digest != old[0].run_digest


def test_changed_data_are_computed_anew_and_the_rest_is_not(bench, data):
    bench(["one"], data)
    path = data / "sts" / "pairs.tsv"
    path.write_text(path.read_text() + "1\tone more\tpair\n")
    results = bench(["one"], data)
    assert bench.models.calls == [("query", 8)]  # both sentences of four pairs
    assert results[-1].data["pairs"] == 4


def test_another_k_scores_the_same_vectors_again(bench, data):
    bench(["one"], data / "beir")
    [result] = bench(["one"], data / "beir", k=3)
    assert result.main_metric == "ndcg@3"
    # only the queries whose latency is measured are embedded: one before, then each alone
    assert bench.models.calls == [("query", 1)] * 3


def test_another_factory_builds_another_index(bench, data):
    bench(["one"], data / "beir")
    [result] = bench(["one"], data / "beir", factory="HNSW8")
    assert result.settings["factory"] == "HNSW8"
    assert ("document", 3) in bench.models.calls


def test_two_tasks_over_one_corpus_embed_it_once(bench, data):
    ponds = data / "beir" / "ponds"
    other = data / "beir" / "puddles"
    fakes.write_ponds(other)
    fakes.write_tsv(other / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", ("q3", "a", 1))
    bench(["one"], ponds, other)
    assert [call for call in bench.models.calls if call[0] == "document"] == [("document", 3)]


def test_costs_of_what_was_kept_are_those_of_when_it_was_made(bench, data):
    class Slow(fakes.WordEncoder):
        def _encode(self, texts, side):
            import time

            time.sleep(0.05)
            return super()._encode(texts, side)

    [first] = bench(["one"], data / "sts", make=Slow)
    result_path(bench.out, "one", "pairs").unlink()
    [again] = bench(["one"], data / "sts", make=Slow)
    assert bench.models.calls == []
    assert again.costs["tokens_per_second"] == first.costs["tokens_per_second"]
    # 18 words within one call that took 0.05 seconds or more
    assert again.costs["tokens_per_second"] <= 17 / 0.05
    assert again.costs["seconds"] >= 0.05


def test_bm25_only_retrieves_and_says_so(bench, data):
    [result] = bench(["bm25"], data)
    assert result.task == "ponds"
    assert bench.models.loaded == []
    assert result.settings == {"protocol": 2, "k": 10, "depth": 100}
    assert result.costs["index_bytes"] > 0
    line = "Passed over for bm25, which only retrieves: wetness, weather, pairs."
    assert line in bench.lines
    assert [one.hits[0].title for one in read_hits(bench.out, "bm25", "ponds")] == ["", ""]
    assert next(read_hits(bench.out, "bm25", "ponds")).hits[0].snippet == "mills grind corn"


def test_bm25_with_nothing_to_retrieve_is_refused(bench, data):
    with pytest.raises(UsageError, match="bm25 can only retrieve, and no task here is retrieval"):
        bench(["bm25"], data / "sts")


def test_one_bad_model_does_not_stop_the_others(bench, data):
    results = bench(["nan", "broken", "good"], data)
    assert {result.model for result in results} == {"good"}
    assert [(failure.model, failure.task) for failure in bench.failures] == [
        ("nan", "ponds"),
        ("nan", "wetness"),
        ("nan", "weather"),
        ("nan", "pairs"),
        ("broken", ""),
    ]
    shown = [str(failure) for failure in bench.failures]
    assert shown[0].startswith("nan on ponds: The encoder returned NaN or infinity for document")
    assert shown[3] == "nan on pairs: Texts 0 to 5: row 0 holds NaN or infinity."
    assert shown[4] == "broken: broken cannot be loaded."


def test_without_on_failure_the_failures_are_raised_at_the_end(data, tmp_path):
    config = BenchConfig(models=["nan", "good"], tasks=[str(data / "sts")], out=tmp_path / "out")
    with pytest.raises(FailureError, match="nan on pairs: Texts 0 to 5"):
        run_benchmark(config, load=fakes.Models())
    assert [result.model for result in read_results(tmp_path / "out")] == ["good"]


def test_bad_data_are_found_before_any_model_is_loaded(bench, data):
    qrels = data / "beir" / "ponds" / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text() + "gone\tb\t1\n")
    with pytest.raises(RecordError, match="1 row names a query that does not exist"):
        bench(["one"], data)
    assert bench.models.loaded == []
    results = bench(["one"], data, skip_bad=True)
    assert len(results) == 4
    assert results[0].notes[0].startswith("1 judgement was left out")


def test_an_undefined_correlation_is_nan_in_the_result_and_null_in_its_file(bench, tmp_path):
    path = fakes.write_tsv(
        tmp_path / "flat.tsv", "score\tsentence1\tsentence2", (1, "a b", "a c"), (1, "a", "b")
    )
    [result] = bench(["one"], path)
    assert math.isnan(result.main_score)
    assert "All gold scores are equal" in result.notes[0]
    assert json.loads(result_path(bench.out, "one", "flat").read_text())["main_score"] is None


def test_damaged_files_of_the_results_folder_are_made_again(bench, data):
    first = bench(["one"], data)
    result_path(bench.out, "one", "ponds").write_text("{")
    for path in [*bench.out.glob(".cache/vectors/*.npy"), *bench.out.glob(".cache/known/*")]:
        path.write_bytes(b"cut")
    for path in bench.out.glob(".cache/indexes/*/manifest.json"):
        path.write_text("{")
    again = bench(["one"], data)
    assert bench.failures == []
    assert [result.metrics for result in again] == [result.metrics for result in first]


def test_the_cache_can_be_deleted(bench, data):
    import shutil

    bench(["one"], data)
    shutil.rmtree(bench.out / ".cache")
    bench(["one"], data)
    assert bench.models.loaded == ["one"]
    assert bench.models.calls == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"models": []}, UsageError, "No model was named"),
        ({"tasks": []}, UsageError, "No task was named"),
        ({"models": ["a", "a"]}, UsageError, "The model 'a' is named twice"),
        ({"k": 0}, UsageError, "k is 0; it must be 1 or more"),
        ({"backend": "fais"}, UnknownNameError, "Did you mean 'faiss'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        BenchConfig(**{"models": ["a"], "tasks": ["t"], "out": tmp_path} | settings)


def test_results_in_the_place_of_a_file_are_refused(tmp_path):
    path = tmp_path / "results"
    path.write_text("")
    with pytest.raises(UsageError, match="results is a file; results need a folder"):
        BenchConfig(models=["a"], tasks=["t"], out=path)


def test_vectors_are_kept_as_they_were(bench, data):
    bench(["one"], data / "sts")
    [path] = bench.out.glob(".cache/vectors/*.npy")
    vectors = np.load(path)
    assert vectors.shape == (6, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert read_result(result_path(bench.out, "one", "pairs")).items["cosine"][0] == pytest.approx(
        1
    )
