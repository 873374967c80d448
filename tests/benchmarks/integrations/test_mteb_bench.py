"""mteb's tasks through ``bench``: the scores are mteb's own, and items, costs and caches ours."""

import sys
from statistics import fmean

import numpy as np
import pytest

pytest.importorskip("mteb", reason="mteb is optional")
pytest.importorskip("sklearn", reason="the bench extra is not installed")

import mteb
from mteb.mocks import mock_tasks as mocks
from mteb.mocks.mock_tasks.clustering import MockClusteringTask

from benchmarks import BenchConfig, CompareConfig, compare, read_results, run_benchmark
from benchmarks.exchange import export_results, import_results
from benchmarks.exchange.reproduce import reproduce
from benchmarks.integrations.mteb import MtebEncoder
from benchmarks.scoring.models import LoadedModel
from benchmarks.scoring.results import read_hits
from benchmarks.tasks import find_tasks, load_task
from benchmarks.tasks.instructions import read_instructions
from benchmarks.tasks.mteb import quiet_mteb
from retrieval.errors import DownloadError, UnknownNameError, UsageError
from retrieval.scores import spearman
from tests.benchmarks.local_mteb import (
    ProjectionEncoder,
    classification_task,
    retrieval_task,
    sts_task,
)
from tests.embedder import stand_ins

TEXT_MOCKS = [
    mocks.MockRetrievalTask,
    mocks.MockMultilingualRetrievalTask,
    mocks.MockInstructionRetrieval,
    mocks.MockRerankingTask,
    mocks.MockSTSTask,
    mocks.MockMultilingualSTSTask,
    mocks.MockPairClassificationTask,
    mocks.MockClassificationTask,
    mocks.MockMultilabelClassification,
    MockClusteringTask,
    mocks.LegacyMockClusteringFastTask,
    mocks.MockBitextMiningTask,
    mocks.MockSummarizationTask,
]


@pytest.fixture
def register(monkeypatch):
    """Let mteb know tasks by the names in their metadata."""

    def add(*classes):
        registry = sys.modules["mteb.get_tasks"]._TASKS_REGISTRY
        for one in classes:
            monkeypatch.setitem(registry, one.metadata.name, one)

    return add


class Bench:
    """Scores tasks of mteb into one folder; ``calls`` are those of all encoders, by side."""

    def __init__(self, out):
        self.out, self.calls, self.lines = out, [], []

    def __call__(self, *tasks, models=("projection",), **options):
        sources = [f"mteb:{name}" for name in tasks]
        config = BenchConfig(models=list(models), tasks=sources, out=self.out, **options)
        return run_benchmark(config, notify=self.lines.append, load=self.load)

    def load(self, name, device, notify):
        encoder = ProjectionEncoder(name)
        encoder.calls = self.calls
        return LoadedModel(encoder, lambda texts, side: sum(len(one.split()) for one in texts))


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "results")


def test_tasks_of_every_type_score_as_in_mteb_for_each_model(register, bench):
    register(*TEXT_MOCKS)
    names = [one.metadata.name for one in TEXT_MOCKS]
    found = bench(*names, models=["projection", "same vectors"])
    ours = {(one.model, one.task): one for one in found}
    assert len(ours) == 2 * len(names)
    for mock in TEXT_MOCKS:
        name = mock.metadata.name
        with quiet_mteb():
            result = mteb.evaluate(
                MtebEncoder(ProjectionEncoder()), mock(), cache=None, co2_tracker=False,
                show_progress_bar=False, num_proc=None,
            )  # fmt: skip
        theirs = fmean(one["main_score"] for one in result.task_results[0].scores["test"])
        label = name if len(mock.metadata.eval_splits) == 1 else f"{name}-test"
        for model in ("projection", "same vectors"):
            one = ours[model, label]
            assert one.main_score == pytest.approx(theirs, abs=1e-5), name
            assert one.main_metric == mock.metadata.main_score
            assert (one.data["revision"], one.data["split"]) == ("NA", "test")


def test_items_and_hits_are_kept_so_that_models_can_be_compared(
    register, bench, library, pairs, labelled
):
    tasks = [retrieval_task(library), sts_task(pairs), classification_task(labelled)]
    register(*map(type, tasks))
    names = [type(one).metadata.name for one in tasks]
    ranking, correlation, accuracy = bench(*names)
    assert 0.1 < ranking.main_score < 0.99
    assert np.mean(ranking.items["ndcg_at_10"]) == pytest.approx(ranking.main_score, abs=1e-5)
    assert set(ranking.item_ids) == {f"q{number}" for number in range(20)}
    items = correlation.items
    assert spearman(items["cosine"], items["gold"]) == pytest.approx(correlation.main_score)
    assert np.mean(accuracy.items["accuracy"]) == pytest.approx(accuracy.main_score)
    assert np.mean(accuracy.draws["accuracy"]) == pytest.approx(accuracy.main_score)
    assert {"tokens_per_second", "query_p50_seconds", "index_bytes"} <= set(ranking.costs)

    documents, _, qrels = library
    hits = {one.query_id: one for one in read_hits(bench.out, "projection", names[0])}
    assert hits["q0"].judged == qrels["q0"]
    best = hits["q0"].hits[0]
    assert best.snippet == documents[best.doc_id]["text"]
    assert best.title == documents[best.doc_id]["title"]
    assert len(hits["q0"].hits) == 10 and len(hits["q0"].scores) == len(documents)

    bench(*names, models=["projection", "bm25"])
    assert bench.lines[-2] == f"Passed over for bm25, which only retrieves: {', '.join(names[1:])}."
    [tested] = compare(read_results(bench.out), CompareConfig(resamples=100)).differences
    assert (tested.task, tested.items) == (names[0], 20) and tested.p > 0


def test_nothing_is_embedded_twice(register, bench, library):
    first = type(retrieval_task(library))
    second = type(retrieval_task(library, "Retrieval"))
    second.metadata = second.metadata.model_copy(update={"name": "Other"})
    register(first, second)
    bench(first.metadata.name)
    sides = [side for side, _ in bench.calls]
    [one] = bench(first.metadata.name)
    assert [side for side, _ in bench.calls] == sides  # the result is read back
    [other] = bench("Other")
    assert other.main_score == one.main_score
    assert bench.calls[len(sides) :] and all(
        len(texts) == 1 for _, texts in bench.calls[len(sides) :]
    )  # single queries, whose time is taken


def test_a_score_meets_those_of_mteb_on_the_same_data(register, bench, library, tmp_path):
    local = type(retrieval_task(library))
    with quiet_mteb():
        local.metadata = mteb.get_task("NanoArguAnaRetrieval").metadata
    split = local.metadata.eval_splits[0]

    class Nano(local):
        def load_data(self, num_proc=None, **kwargs):
            super().load_data()
            self.dataset = {"default": {split: self.dataset["default"]["test"]}}

    register(Nano)
    [ours] = bench("NanoArguAnaRetrieval")
    written = export_results(bench.out, tmp_path / "cache", "mteb", notify=bench.lines.append)
    assert not [line for line in bench.lines if "other sizes" in line]
    [back] = import_results(tmp_path / "cache", tmp_path / "back").results
    assert written and back.data["sha256"] == ours.data["sha256"]
    assert (back.task, back.main_metric) == (ours.task, ours.main_metric)
    assert back.main_score == pytest.approx(ours.main_score, abs=1e-6)

    again = reproduce(bench.out / "projection" / "NanoArguAnaRetrieval.json", load=bench.load)
    assert (again.gap, again.changed_items, list(again.differences)) == (0, 0, [])


def test_a_mean_of_tasks_is_the_mean_of_its_parts_and_tested_by_parts(register, bench, library):
    names = ["CQADupstackAndroidRetrieval", "CQADupstackTexRetrieval"]
    parts = [type(retrieval_task(library)) for _ in names]
    for part, name in zip(parts, names, strict=True):
        part.metadata = part.metadata.model_copy(update={"name": name})
    update = {"name": "CQADupstackRetrieval", "type": "Retrieval"}
    update["tasks"] = [part() for part in parts]
    metadata = mocks.MockAggregatedTask.metadata.model_copy(update=update)
    register(type("Both", (mocks.MockAggregatedTask,), {"metadata": metadata}))
    [found] = bench("CQADupstackRetrieval")
    assert "is the mean of 2 tasks" in bench.lines[0]
    assert found.item_ids == names
    assert found.main_score == pytest.approx(fmean(found.items["ndcg_at_10"]))
    assert found.recipe["task"] == "mteb:CQADupstackRetrieval"


def find(*sources, split="test", lines=None):
    return find_tasks(sources, split, (lines if lines is not None else []).append)


def test_a_name_means_a_task_some_of_its_subsets_a_mean_of_tasks_or_a_benchmark():
    [dev] = find("mteb:MSMARCO")
    assert (dev.name, dev.split) == ("MSMARCO", "dev")  # mteb scores no other
    [some] = find("mteb:STS22.v2[en, de]")
    assert set(some.subsets) == {"en", "de"} and str(some.path) == "mteb:STS22.v2[en,de]"
    lines = []
    parts = find("mteb:CQADupstackRetrieval", lines=lines)
    assert len(parts) == 12
    assert parts[0].name == "CQADupstackRetrieval/CQADupstackAndroidRetrieval"
    assert "is the mean of 12 tasks" in lines[0]
    [again] = find(str(parts[0].path))
    assert again.identity == parts[0].identity
    whole = find("mteb:NanoBEIR")
    assert len(whole) == 13 and {one.task_type for one in whole} == {"retrieval"}


@pytest.mark.parametrize(
    "source, split, expected",
    [
        ("mteb:scifact", "test", "Did you mean 'SciFact'"),
        ("mteb:STS22.v2[xx]", "test", "no subset 'xx'; expected some of en, "),
        ("mteb:STS12", "dev", "no split 'dev'; expected one of test"),
        ("mteb:CIFAR10", "test", "expected a task of texts"),
        ("mteb:[en]", "test", r"expected mteb:TASK, mteb:TASK\[SUBSET,SUBSET\]"),
    ],
)
def test_what_a_name_cannot_mean_is_refused(source, split, expected):
    kind = UnknownNameError if "Did you mean" in expected else UsageError
    with pytest.raises(kind, match=expected):
        find(source, split=split)


def test_data_that_are_nowhere_are_told_with_the_way_to_get_them():
    [task] = find("mteb:STS12")
    with pytest.raises(DownloadError, match=r"mteb:STS12 .* mteb.get_task\('STS12'\).load_data"):
        load_task(task, skip_bad=False)


def test_the_published_instruction_of_a_task_is_mtebs_own(tmp_path):
    published = read_instructions("published")
    [sts] = find("mteb:STS12")
    assert published.find(sts) == "Retrieve semantically similar text."
    [intents] = find("mteb:Banking77Classification")
    assert published.find(intents) == mteb.get_task("Banking77Classification").metadata.prompt
    path = tmp_path / "own.toml"
    path.write_text('[types]\nclassification = "Mine"\n')
    assert read_instructions(str(path)).find(intents) == "Mine"


def test_texts_that_are_read_in_part_are_told(register, bench, pairs, tmp_path):
    stand_ins.write_model_folder(tmp_path / "tiny")
    register(type(sts_task(pairs)))
    name = f"{tmp_path / 'tiny'}:mean+causal,max_tokens=4"
    config = BenchConfig(models=[name], tasks=["mteb:LocalSTS"], out=tmp_path / "r", device="cpu")
    [result] = run_benchmark(config)
    assert any("texts of 80 are longer than the model reads" in note for note in result.notes)
