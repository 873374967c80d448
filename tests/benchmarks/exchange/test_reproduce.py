import json

import pytest

from benchmarks.exchange.reproduce import reproduce
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import result_path
from benchmarks.scoring.runner import run_benchmark
from retrieval.errors import UsageError
from tests.benchmarks import fakes


@pytest.fixture
def bench(tmp_path):
    """Score a model on the ponds and return the result's file."""

    def run(model="bm25", **settings):
        folder = fakes.write_ponds(tmp_path / "ponds")
        config = BenchConfig(models=[model], tasks=[str(folder)], out=tmp_path / "out", **settings)
        run_benchmark(config, load=fakes.Models())
        return result_path(config.out, model, "ponds")

    return run


def change(path, **parts):
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


@pytest.mark.parametrize("model", ["bm25", "words"])
def test_a_score_is_reproduced_from_its_own_recipe(bench, model):
    path = bench(model, k=2)
    found = reproduce(path, load=fakes.Models())
    assert (found.metric, found.gap, found.changed_items) == ("ndcg@2", 0.0, 0)
    assert [one for one in found.differences if "equal scores" not in one] == []
    assert found.after.run_digest == found.before.run_digest


def test_other_data_other_versions_and_other_items_are_named(bench, tmp_path):
    path = bench()
    change(path, versions={"numpy": "1.0"}, notes=["7 documents were cut."])
    with (tmp_path / "ponds" / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "d", "text": "grind corn"}\n')
    found = reproduce(path)
    told = " ".join(found.differences)
    assert "The data are others: documents 3 and now 4." in told
    assert "numpy was 1.0 and is" in told
    assert "Then, not now: 7 documents were cut." in told
    assert found.changed_items == 1


def test_data_that_moved_are_named_with_task(bench, tmp_path):
    path = bench()
    moved = (tmp_path / "ponds").rename(tmp_path / "elsewhere")
    assert reproduce(path, task=str(moved)).gap == 0


def test_equal_scores_are_told_with_how_far_they_can_move_the_score(tmp_path):
    # Two documents with the same text, one of them relevant: rank 1 or 2, nDCG 1 or 1 / log2(3).
    folder = fakes.write_beir(
        tmp_path / "twins",
        {"a": "still water", "b": "still water", "c": "mills"},
        {"q": "still water"},
        [("q", "a", 1)],
    )
    config = BenchConfig(models=["bm25"], tasks=[str(folder)], out=tmp_path / "out")
    run_benchmark(config)
    [line] = reproduce(result_path(config.out, "bm25", "twins")).differences
    assert line == (
        "1 query has documents with equal scores: by their order alone ndcg@10 can be 0.6309 to "
        "1.0000."
    )


def test_an_imported_score_is_compared_under_our_metric(bench, tmp_path):
    path = bench()
    data = json.loads(path.read_text())
    parts = {"main_metric": "ndcg_at_10", "metrics": {"ndcg_at_10": 0.25}, "items": {}}
    source = {"format": "mteb", "task": "Ponds", "dataset_revision": "abc", "file": "x"}
    change(path, **parts, item_ids=[], source=source, recipe={})
    with pytest.raises(UsageError, match="Where are the data of 'ponds'"):
        reproduce(path)
    found = reproduce(path, task=str(tmp_path / "ponds"))
    assert (found.metric, found.recorded, found.now) == ("ndcg@10", 0.25, data["main_score"])
    assert found.changed_items is None
    assert found.differences[0] == (
        "The record is of data revision abc; here there are 3 documents, 2 queries, 3 judgements."
    )


def test_a_record_without_a_recipe_says_what_to_type(bench):
    path = bench()
    change(path, recipe={})
    with pytest.raises(UsageError, match="made before results held their recipe"):
        reproduce(path)
