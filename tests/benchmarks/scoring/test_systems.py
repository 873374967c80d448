"""Hybrid search and reranking are scored like models, without embedding anything again."""

import pytest

from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import read_hits
from benchmarks.scoring.runner import run_benchmark
from benchmarks.scoring.systems import System, parse_system
from embedder.models.sentence_transformers import load_reranker
from retrieval.errors import UsageError
from retrieval.types import DEFAULT_WEIGHT, Blend
from tests.benchmarks import fakes
from tests.embedder.models import rerankers

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")

DEFAULT = Blend("hybrid", "convex", DEFAULT_WEIGHT)


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("bm25", System("bm25")),
        ("millpond-135m,max_tokens=64", System("millpond-135m,max_tokens=64")),
        ("hybrid:a:mean+causal,max_tokens=9", System("a:mean+causal,max_tokens=9", DEFAULT)),
        ("hybrid=0.4:a", System("a", Blend("hybrid", "convex", 0.4))),
        ("hybrid=rrf:a", System("a", Blend("hybrid", "rrf"))),
        ("a>org/reranker", System("a", None, "org/reranker")),
        ("hybrid:a>org/reranker", System("a", DEFAULT, "org/reranker")),
    ],
)
def test_names(name, system):
    assert parse_system(name) == system


def test_a_folder_is_itself_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a>b").mkdir()
    assert parse_system("a>b") == System("a>b")
    (tmp_path / "hybrid").mkdir()
    assert parse_system("hybrid:hybrid") == System("hybrid", DEFAULT)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hybrid=2:a", "between 0"),
        ("hybrid=half:a", "hybrid=0.4:MODEL"),
        ("hybrid:hybrid:a", "the name of one model"),
        ("hybrid=0.4:hybrid=rrf:a", "the name of one model"),
        ("hybrid:hybrid", "the name of one model"),
        ("hybrid:", "the name of one model"),
        ("hybrid=0.4", "the name of one model"),
        ("hybrid", "the name of one model"),
        ("hybrid:hybrid:a>b", "the name of one model"),
        ("a>b>c", "one reranker"),
        ("hybrid=nan:a", "between 0"),
        ("hybrid:bm25", "one of the two arms"),
        ("bm25>r", "one of the two arms"),
        (">r", "MODEL>RERANKER"),
        ("a>", "MODEL>RERANKER"),
    ],
)
def test_what_means_nothing_is_refused(name, said):
    with pytest.raises(UsageError, match=said):
        parse_system(name)


@pytest.fixture
def bench(tmp_path):
    data = fakes.write_all(tmp_path / "data")
    lines = []

    def make(name):
        run.made.append(fakes.WordEncoder(name))
        return run.made[-1]

    def run(*names, **settings):
        models = fakes.Models(make)
        config = BenchConfig(models=names, tasks=[str(data)], out=tmp_path / "results", **settings)
        return run_benchmark(config, load=models, notify=lines.append), models

    run.lines, run.made = lines, []
    return run


def test_hybrid_reuses_the_vectors_of_its_model(bench):
    results, models = bench("one", "bm25", "hybrid:one", "hybrid=0:one", "hybrid=1:one")
    scores = {r.model: r for r in results if r.task_type == "retrieval"}
    assert models.loaded == ["one"] * 4
    counts = [count for one in bench.made for side, count in one.calls if side == "document"]
    assert counts == [3]  # each document once for all four
    digests = [result.run_digest for result in scores.values()]
    assert len(set(digests)) == 5
    # the arms alone, as the two ends of the weight
    assert scores["hybrid=1:one"].items == scores["one"].items
    assert scores["hybrid=0:one"].items["ndcg@10"] == scores["bm25"].items["ndcg@10"]
    assert any("Passed over for hybrid:one" in line for line in bench.lines)


def test_the_plain_model_is_searched_by_meaning_whatever_else_was_scored(bench):
    alone = bench("one")[0]
    bench("hybrid:one")
    again = bench("one", k=5)[0]
    first = next(r for r in alone if r.task_type == "retrieval")
    other = next(r for r in again if r.task_type == "retrieval")
    assert first.items["recall@100"] == other.items["recall@100"]


def test_a_finished_hybrid_run_is_read_back(bench):
    first = bench("hybrid:one")[0]
    again, models = bench("hybrid:one")
    assert [r.run_digest for r in again] == [r.run_digest for r in first]
    assert models.loaded == []


def test_a_reranker_orders_the_hits(bench, tmp_path):
    folder = tmp_path / "reranker"
    rerankers.write_bert(folder)
    (result, *rest), _ = bench(f"hybrid:one>{folder}")
    assert not rest
    reranker = load_reranker(str(folder), "cpu")
    for query in read_hits(tmp_path / "results", result.model, result.task):
        texts = [f"{hit.title} {hit.snippet}".strip() for hit in query.hits]
        scores = reranker.activate(reranker.score(query.query, texts))
        assert [hit.score for hit in query.hits] == pytest.approx(scores.tolist(), abs=1e-5)
        assert list(scores) == sorted(scores, reverse=True)
