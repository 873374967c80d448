"""mteb's folders, written and read by mteb itself."""

import json
import math

import numpy as np
import pytest

from benchmarks.exchange import export_results, import_results
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import read_results
from benchmarks.scoring.runner import run_benchmark
from retrieval.errors import UnknownNameError, UsageError
from tests.benchmarks import fakes

mteb = pytest.importorskip("mteb", reason="the mteb extra is not installed")
pytest.importorskip("sklearn", reason="the bench extra is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*load_results.*:DeprecationWarning"),
]

TASKS = [
    "SciFact",
    "NFCorpus",
    "ArguAna",
    "FiQA2018",
    "STSBenchmark",
    "SICK-R",
    "STS12",
    "Banking77Classification",
    "TwentyNewsgroupsClustering",
    "SprintDuplicateQuestions",
]


def write_scores(folder, model, task_name, score, *, revision="1", split=None, **changes):
    """One result by mteb's own writer."""
    task = mteb.get_task(task_name)
    main = task.metadata.main_score
    scores = {subset: {main: score, "main_score": score} for subset in task.metadata.hf_subsets}
    written = mteb.TaskResult.from_task_results(
        task, {split or task.metadata.eval_splits[0]: scores}, evaluation_time=1.0
    ).model_copy(update=changes)
    meta = mteb.models.ModelMeta.create_empty({"name": model, "revision": revision})
    mteb.ResultCache(folder).save_to_cache(written, meta)
    return mteb.ResultCache(folder).get_task_result_path(task_name, meta)


@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory):
    """20 models on 10 tasks in mteb's own layout."""
    folder = tmp_path_factory.mktemp("mteb")
    chance = np.random.default_rng(0)
    for number in range(20):
        for task in TASKS:
            score = round(0.3 + 0.02 * number + float(chance.normal(0, 0.01)), 6)
            write_scores(folder, f"org/model-{number:02}", task, score)
    return folder


def test_twenty_models_on_ten_tasks_come_in_whole(leaderboard, tmp_path):
    lines = []
    found = import_results(leaderboard, tmp_path / "out", notify=lines.append)
    assert (len(found.results), found.left_out, lines) == (200, 0, [])
    read = read_results(tmp_path / "out")
    assert {one.model for one in read} == {f"org/model-{number:02}" for number in range(20)}
    frame = mteb.ResultCache(leaderboard).load_results().to_dataframe(format="long")
    theirs = {(row.model_name, row.task_name): row.score for row in frame.itertuples()}
    assert {(one.model, one.task): one.main_score for one in read} == pytest.approx(theirs)
    kinds = {one.task: one.task_type for one in read}
    assert kinds["SciFact"] == "retrieval" and kinds["STS12"] == "sts"
    assert kinds["SprintDuplicateQuestions"] == "pair_classification"
    assert all(one.source["format"] == "mteb" and one.source["dataset_revision"] for one in read)


def test_our_results_go_through_mtebs_own_reader_with_equal_numbers(tmp_path, monkeypatch):
    fakes.write_ponds(tmp_path / "scifact")
    fakes.write_pairs(tmp_path / "STSBenchmark.tsv")
    fakes.write_labels(tmp_path / "banking77")
    fakes.write_clusters(tmp_path / "TwentyNewsgroupsClustering.tsv")
    fakes.write_ponds(tmp_path / "mine")
    names = ("scifact", "STSBenchmark.tsv", "banking77", "TwentyNewsgroupsClustering.tsv", "mine")
    tasks = [str(tmp_path / name) for name in names]
    out, lines = tmp_path / "results", []
    run_benchmark(BenchConfig(models=["words"], tasks=tasks, out=out), load=fakes.Models())
    written = export_results(out, tmp_path / "cache", "mteb", notify=lines.append)
    assert len(written) == 4, lines
    assert any("mine. mteb has no task of that name" in line for line in lines)
    assert sum("the data have other sizes than mteb's" in line for line in lines) == 4
    for path in written:  # mteb's own validation: every split and subset of the task is there
        checked = mteb.TaskResult.from_disk(path).validate_and_filter_scores().scores
        assert all(math.isfinite(row["main_score"]) for rows in checked.values() for row in rows)

    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "cache"))
    [loaded] = mteb.load_results(download_latest=False).model_results
    assert loaded.model_name == "millpond/words"
    theirs = {one.task_name: one.get_score() for one in loaded.task_results}
    ours = {one.task: one.main_score for one in read_results(out)}
    assert theirs == {
        "SciFact": pytest.approx(ours["scifact"], abs=1e-6),
        "STSBenchmark": pytest.approx(ours["STSBenchmark"], abs=1e-6),
        "Banking77Classification": pytest.approx(ours["banking77"], abs=1e-6),
        "TwentyNewsgroupsClustering": pytest.approx(ours["TwentyNewsgroupsClustering"], abs=1e-6),
    }
    [scifact] = [one for one in loaded.task_results if one.task_name == "SciFact"]
    assert scifact.dataset_revision.startswith("millpond-")
    [scores] = scifact.scores["test"]
    assert {"ndcg_at_1", "map_at_100", "recall_at_100", "precision_at_5", "hit_rate_at_3",
            "mrr_at_10", "nauc_ndcg_at_10_max"} <= set(scores)  # fmt: skip
    assert "ndcg_at_1000" not in scores  # the run has 100 hits

    # And back: what was exported is imported under mteb's names with the same numbers.
    back = import_results(tmp_path / "cache", tmp_path / "back").results
    assert {one.task: one.main_score for one in back} == pytest.approx(theirs)


def test_a_name_that_mteb_lacks_is_refused_and_a_named_one_taken(tmp_path):
    fakes.write_ponds(tmp_path / "mine")
    config = BenchConfig(models=["bm25"], tasks=[str(tmp_path / "mine")], out=tmp_path / "results")
    run_benchmark(config)
    with pytest.raises(UnknownNameError, match="'NoSuchTask'"):
        export_results(config.out, tmp_path / "cache", "mteb", names={"mine": "NoSuchTask"})
    with pytest.raises(UsageError, match="No result of .* can be written as mteb"):
        export_results(config.out, tmp_path / "cache", "mteb")
    [path] = export_results(config.out, tmp_path / "cache", "mteb", names={"mine": "NFCorpus"})
    assert path.name == "NFCorpus.json"


def test_bad_files_are_one_line_each_and_the_rest_goes_on(tmp_path):
    folder = tmp_path / "in"
    write_scores(folder, "org/good", "SciFact", 0.5)
    write_scores(folder, "org/nan", "SciFact", math.nan)
    write_scores(folder, "org/percent", "SciFact", 51.2)
    path = write_scores(folder, "org/old", "SciFact", 0.4)
    path.write_text(json.dumps({"mteb_dataset_name": "NoTask", "mteb_version": "1.0.0"}))
    path = write_scores(folder, "org/future", "SciFact", 0.4)
    path.write_text(json.dumps({"task_name": "SciFact", "mteb_version": "9.0", "tables": []}))
    path = write_scores(folder, "org/damaged", "SciFact", 0.4)
    path.write_text('{"task_name": ')
    path = write_scores(folder, "org/loss", "SciFact", 0.4)
    data = json.loads(path.read_text()) | {"task_name": "MyPrivateTask"}
    data["scores"]["test"] = [
        {"main_score": 0.2, "loss": 0.2, "hf_subset": "default", "languages": ["eng-Latn"]}
    ]
    path.write_text(json.dumps(data))
    lines = []
    found = import_results(folder, tmp_path / "out", notify=lines.append)
    assert [(one.model, one.main_score) for one in found.results] == [("org/good", 0.5)]
    said = {line.split("results/")[1].split("/")[0]: line for line in lines}
    assert "ndcg_at_10 is nan, no number" in said["org__nan"]
    assert "ndcg_at_10 is 51.2; expected -1 to 1 (a percentage?)" in said["org__percent"]
    assert "cannot read its layout" in said["org__old"]
    assert "cannot read its layout" in said["org__future"]
    assert "not JSON" in said["org__damaged"]
    assert "of loss the lower is the better" in said["org__loss"]
    assert found.left_out == len(lines) == 6


def test_other_revisions_splits_and_models_revisions_are_kept_apart(tmp_path):
    folder = tmp_path / "in"
    write_scores(folder, "org/a", "SciFact", 0.5)
    write_scores(folder, "org/b", "SciFact", 0.6)
    write_scores(folder, "org/c", "SciFact", 0.7, dataset_revision="0123456789")
    write_scores(folder, "org/a", "SciFact", 0.4, revision="2")
    write_scores(folder, "org/b", "NFCorpus", 0.3, split="dev")
    lines = []
    found = import_results(folder, tmp_path / "out", notify=lines.append)
    assert {(one.model, one.task) for one in found.results} == {
        ("org/a@1", "SciFact"),
        ("org/a@2", "SciFact"),
        ("org/b", "SciFact"),
        ("org/c", "SciFact@01234567"),
        ("org/b", "NFCorpus-dev"),
    }
    assert len(lines) == 2
    assert lines[0].startswith("org/a: 2 revisions; each is a model of its own")
    assert lines[1].startswith("SciFact@01234567: another revision, split or set of languages")
    # What is there keeps the name, also against many.
    for model in "defg":
        write_scores(tmp_path / "more", f"org/{model}", "SciFact", 0.7, dataset_revision="99")
    import_results(tmp_path / "more", tmp_path / "out")
    tasks = {one.model: one.task for one in read_results(tmp_path / "out")}
    assert (tasks["org/a@1"], tasks["org/d"]) == ("SciFact", "SciFact@99")


def test_two_files_of_one_model_and_task_that_disagree_are_both_left_out(tmp_path):
    for place, score in (("one", 0.3), ("two", 0.7)):
        write_scores(tmp_path / "in" / place, "org/a", "SciFact", score)
        write_scores(tmp_path / "in" / place, "org/b", "SciFact", 0.5)
    lines = []
    found = import_results(tmp_path / "in", tmp_path / "out", notify=lines.append)
    assert [one.model for one in found.results] == ["org/b"]
    assert len(lines) == 1 and "org/a on SciFact: they disagree (0.3000 and 0.7000)" in lines[0]


def test_files_of_mteb_1_are_read(tmp_path):
    old = {"mteb_dataset_name": "SciFact", "mteb_version": "1.0.2", "dataset_revision": "abc",
           "test": {"ndcg_at_10": 0.625, "map_at_10": 0.5, "evaluation_time": 3.0}}  # fmt: skip
    path = tmp_path / "in" / "org__model" / "SciFact.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(old))
    [found] = import_results(tmp_path / "in", tmp_path / "out").results
    assert (found.model, found.task, found.main_score) == ("org/model", "SciFact", 0.625)
    assert found.metrics["map_at_10"] == 0.5
