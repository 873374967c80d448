"""BEIR's quirks on stand-ins that have them."""

import pytest

from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import read_results, result_path
from benchmarks.scoring.runner import run_benchmark
from benchmarks.tasks import find_tasks
from benchmarks.tasks.datasets import BEIR_CLOSED, BEIR_NAMES, fetch_beir
from retrieval.errors import DownloadError
from retrieval.protocols import silent
from tests.benchmarks import fakes


def score(tmp_path, source):
    config = BenchConfig(models=["bm25"], tasks=[str(source)], out=tmp_path / "results")
    return run_benchmark(config)


def test_the_parts_of_cqadupstack_are_averaged_each_weighing_the_same(tmp_path):
    # One query of one part is found, of the three of the other none has its document first: 1 and
    # 0 make 0.5, where a mean over queries would be 0.25.
    docs = {"a": "still water", "b": "grind corn"}
    folder = tmp_path / "cqadupstack"
    fakes.write_beir(folder / "unix", docs, {"q": "still water"}, [("q", "a", 1)])
    asked = {f"q{n}": "grind corn" for n in range(3)}
    fakes.write_beir(folder / "tex", docs, asked, [(name, "a", 1) for name in asked])
    [found] = score(tmp_path, folder)
    assert (found.task, found.item_ids) == ("cqadupstack", ["tex", "unix"])
    assert found.items["mrr@10"] == [0.0, 1.0]
    assert found.metrics["mrr@10"] == 0.5
    assert found.data["queries"] == 4
    assert found.notes[0] == "The mean of 2 parts, each weighing the same; tested by parts."
    assert read_results(tmp_path / "results") == [found]
    assert result_path(tmp_path / "results", "bm25", "cqadupstack/tex").is_file()
    # And again: the parts are read back, not computed.
    before = result_path(tmp_path / "results", "bm25", "cqadupstack/tex").read_bytes()
    assert score(tmp_path, folder)[0].metrics == found.metrics
    assert result_path(tmp_path / "results", "bm25", "cqadupstack/tex").read_bytes() == before


@pytest.mark.parametrize(("name", "first"), [("arguana", 1.0), ("quora", 1.0), ("other", 0.5)])
def test_a_hit_with_the_querys_id_is_the_query_in_arguana_and_quora(tmp_path, name, first):
    # The document q differs from the query by a word; BEIR drops it by its id alone.
    docs = {"q": "still water again", "a": "still mills", "b": "corn"}
    folder = fakes.write_beir(tmp_path / name, docs, {"q": "still water"}, [("q", "a", 1)])
    [found] = score(tmp_path, folder)
    assert found.metrics["mrr@10"] == first


def test_a_judged_document_that_is_missing_counts_as_not_found_with_a_note(tmp_path):
    folder = fakes.write_beir(
        tmp_path / "nq", {"a": "still water"}, {"q": "still water"}, [("q", "a", 1), ("q", "z", 1)]
    )
    [found] = score(tmp_path, folder)
    assert found.metrics["recall@100"] == 0.5
    assert any("1" in note and "judged" in note for note in found.notes)


def test_msmarco_is_scored_on_dev_as_beir_does(tmp_path):
    folder = tmp_path / "msmarco"
    for split in ("dev", "test"):
        fakes.write_beir(folder, {"a": "x"}, {"q": "x"}, [("q", "a", 1)], split=split)
    lines = []
    [task] = find_tasks(["beir:msmarco"], "test", lines.append, lambda name, notify: folder)
    assert (task.name, task.split) == ("msmarco-dev", "dev")
    assert lines == ["beir:msmarco: BEIR scores its dev split, so that is taken in place of test."]


@pytest.mark.parametrize("name", BEIR_CLOSED)
def test_a_set_that_nobody_may_pass_on_says_where_to_put_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DownloadError, match=f"{name} is one of BEIR's sets that only their owners"):
        fetch_beir(name, silent)
    folder = next(tmp_path.glob("*"), tmp_path / "millpond") / "beir" / name
    folder.mkdir(parents=True)
    assert fetch_beir(name, silent) == folder


def test_all_of_beirs_sets_are_known():
    assert len({*BEIR_NAMES, *BEIR_CLOSED}) == 19  # the paper's 18, and MS MARCO
