"""A whole study on a tiny random base: stopped, gone on with, with runs that fail, reported."""

import json
import shutil
from dataclasses import dataclass, field, replace

import pytest

from benchmarks.exchange.reproduce import reproduce
from benchmarks.study.markdown import write_study_report
from benchmarks.study.page import render_study_page
from benchmarks.study.plan import plan_study
from benchmarks.study.runner import run_study
from benchmarks.study.runs import StudyFolder, list_runs
from embedder.training import trainer
from retrieval.errors import UsageError
from retrieval.typed import plain_data
from tests.embedder.tiny_decoders import write_base

VARIANTS = [
    {"name": "model1", "bases": ["tiny"]},
    {"name": "model2", "bases": ["tiny"]},
    {"name": "broken", "variant": "mean+bidirectional", "bases": ["neo"]},
]


@dataclass
class Ran:
    """A study that was interrupted, gone on with, and reported."""

    config: object
    out: object
    first: list = field(default_factory=list)
    second: list = field(default_factory=list)
    outcome: object = None
    summary: dict = field(default_factory=dict)
    batches: dict = field(default_factory=dict)


@pytest.fixture(scope="module")
def ran(study_config, study_plan, tmp_path_factory):
    """Killed as its third run begins, then run again, its batches noted by variant and seed.

    That a base ignores bidirectional attention shows when it computes.
    """
    neo = {"base": str(write_base(tmp_path_factory.mktemp("neo"), "gpt_neo")), "name": "neo"}
    bases = [*study_plan()["bases"], {**neo, "max_tokens": 24}]
    config = study_config(variants=VARIANTS, bases=bases)
    found = Ran(config, tmp_path_factory.mktemp("study") / "out")
    patch = pytest.MonkeyPatch()
    draw = trainer.draw_pairs

    def note(data, places, negatives, seed):
        step = draw(data, places, negatives, seed)
        # By step, since the warning about memory draws the first steps as well.
        found.batches.setdefault(found.run, {})[seed[-1]] = [pair.query for pair in step.pairs]
        return step

    def watch(lines, stop_at=None):
        def notify(line):
            if line.startswith("Run "):
                lines.append(line)
                found.run = line.partition(": ")[2]
                if stop_at is not None and line.startswith(stop_at):
                    raise KeyboardInterrupt

        return notify

    patch.setattr(trainer, "draw_pairs", note)
    with pytest.raises(KeyboardInterrupt):
        run_study(found.config, found.out, device="cpu", notify=watch(found.first, "Run 3 of 6"))
    found.outcome = run_study(found.config, found.out, device="cpu", notify=watch(found.second))
    patch.undo()
    found.summary = write_study_report(found.config, found.out)
    return found


def test_a_killed_study_goes_on_with_the_run_that_it_was_at(ran):
    assert [line.split(":")[0] for line in ran.first] == [f"Run {n} of 6" for n in (1, 2, 3)]
    assert [line.split(":")[0] for line in ran.second] == [f"Run {n} of 6" for n in (3, 4, 5, 6)]


def test_a_failed_run_is_recorded_and_stops_no_other(ran):
    assert ran.outcome.done == [
        "tiny: model1, seed 0",
        "tiny: model2, seed 0",
        "tiny: model1, seed 1",
        "tiny: model2, seed 1",
    ]
    assert list(ran.outcome.failed) == ["neo: broken, seed 0", "neo: broken, seed 1"]
    reason = ran.outcome.failed["neo: broken, seed 0"]
    assert reason.startswith("training: ")
    assert "this architecture ignores config.is_causal=False" in reason
    assert ran.summary["failed"] == dict(ran.outcome.failed)


@pytest.mark.parametrize("start", [run_study, plan_study])
def test_what_a_base_lacks_is_told_before_anything_is_run(study_config, tmp_path, start):
    broken = {"name": "deep", "variant": "model3", "options": {"layers": [9]}}
    config = study_config(variants=[{"name": "model1"}, broken])
    lines = []
    with pytest.raises(UsageError, match=r"^tiny: deep: pooling option layers is \[9\]"):
        start(config, tmp_path / "out", device="cpu", notify=lines.append)
    config = study_config(bench={"factory": "PQ7"})  # 7 parts of 32 numbers
    with pytest.raises(UsageError, match=r"^tiny: model\d: .*PQ7"):
        start(config, tmp_path / "out", device="cpu", notify=lines.append)
    assert not any(line.startswith(("Run", "Calibrating")) for line in lines)


def test_two_variants_of_a_seed_see_the_same_batches_and_another_seed_others(ran):
    first, second = (ran.batches[f"tiny: {name}, seed 0"] for name in ("model1", "model2"))
    assert len(first) == 2
    assert first == second
    assert first != ran.batches["tiny: model1, seed 1"]


def test_the_first_weights_of_a_pooling_depend_on_the_seed(ran):
    seeds = {
        run.train.seed: run.train.model.pooling_options.seed
        for run in list_runs(ran.config)
        if run.variant == "model2"
    }
    assert seeds == {0: 0, 1: 1}


def test_trained_models_and_vectors_are_deleted_and_scores_stay(ran):
    assert list(ran.out.glob("runs/*model[12]*/model")) == []
    assert list(ran.out.glob("results/.cache/vectors/*")) == []
    assert len(list(ran.out.glob("results/*/*.json"))) == 4 * 4


def test_a_failed_run_alone_is_tried_again(ran, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(ran.out, out)
    lines = []
    outcome = run_study(ran.config, out, device="cpu", notify=lines.append)
    runs = [line for line in lines if line.startswith("Run ")]
    assert runs == ["Run 3 of 6: neo: broken, seed 0", "Run 6 of 6: neo: broken, seed 1"]
    assert len(outcome.done) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": (0, 1, 2)}, r"config.seeds was \[0, 1\] and is \[0, 1, 2\]"),
        ({"sample_texts": 5}, "config.sample_texts was 4 and is 5"),
    ],
)
def test_a_changed_config_is_refused_by_what_changed(ran, change, message):
    with pytest.raises(UsageError, match=message):
        run_study(replace(ran.config, **change), ran.out, device="cpu")


def test_what_only_changes_the_report_may_change(ran):
    changed = replace(ran.config, margin=0.5, keep_adapters=True)
    StudyFolder(ran.out).check({"config": plain_data(changed)})
    summary = write_study_report(changed, ran.out)
    assert summary["margin"] == 0.5
    assert write_study_report(ran.config, ran.out)["margin"] == 0.01


def test_a_folder_with_something_else_in_it_is_refused(ran, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no study"):
        run_study(ran.config, tmp_path, device="cpu")


def test_the_summary_holds_scores_costs_layers_and_verdicts(ran):
    [base] = ran.summary["bases"]
    assert base["task_types"] == ["retrieval", "sts", "classification", "clustering"]
    first, second = base["variants"]
    assert (first["name"], second["name"]) == ("model1", "model2")
    assert set(second["tests"]) == set(base["task_types"])
    assert first["tests"] == {}
    assert second["costs"]["train_pooling_parameters"] > 0
    assert "train_pooling_parameters" in first["costs"]
    assert first["costs"]["flops"] < second["costs"]["flops"]
    assert [len(curve) for curve in first["curves"]] == [2, 2]
    titles = [one["title"] for one in base["heatmaps"]]
    assert titles == [
        "before training, causal",
        "model1 after training, seed 0",
        "model2 after training, seed 0",
    ]
    matrix = base["heatmaps"][0]["matrix"]
    assert (len(matrix), len(matrix[0])) == (4, 4)
    assert [matrix[n][n] for n in range(4)] == [1, 1, 1, 1]
    assert [claim["number"] for claim in base["claims"]] == [1, 2, 3, 4]
    # Models 3 to 5 are not in the study, so no claim can be told by all that it names.
    assert {claim["word"] for claim in base["claims"]} <= {"cannot tell", "does not hold"}


def test_a_single_key_makes_queries_and_keys_idle(ran):
    [base] = ran.summary["bases"]
    attention = base["variants"][1]["attention"]
    assert attention["keys"] == 1
    assert attention["change"] == 0
    # Width 32, heads 32 // 8 = 4 of width 8: query and key 32 x 32 each, and a norm of 2 x 32.
    assert attention["idle"] == 2 * 32 * 32 + 2 * 32


def test_page_and_markdown_say_the_verdicts_and_the_fact(ran):
    page = (ran.out / "report.html").read_text()
    markdown = (ran.out / "report.md").read_text()
    for text in (page, markdown):
        assert "Trainable pooling over all layers beats" in text
        assert "the softmax over one key is 1" in text
        assert "pooling.latents is 3" in text
        assert "Each variant is trained with 2 seeds" in text
        assert "broken, seed 0" in text
    assert "<script" not in page
    assert page.count("<svg") >= 2 + 3 + 1  # curves, heatmaps, quality against cost
    kept = json.loads((ran.out / "summary.json").read_text())
    assert kept["bases"] == ran.summary["bases"]


def test_names_are_text_on_the_page_whatever_they_hold(ran):
    hostile = '</style><script>alert("x")</script>@TITLE@'
    base = ran.summary["bases"][0] | {"name": hostile}
    page = render_study_page(ran.summary | {"title": hostile, "bases": [base]})
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&quot;x&quot;)") >= 3  # title, heading, section
    assert "@TITLE@" in page


def test_a_dry_run_without_calibration_counts_what_is_left(ran):
    plan = plan_study(ran.config, ran.out, calibrate=False)
    assert [(row.variant, row.runs) for row in plan.rows] == [("broken", 2)]
    assert plan.done == 4
    assert plan.seconds != plan.seconds  # NaN: nothing was run
    # 3 documents, 2 judged queries; 3 pairs; 16 drawn and 2 test rows; 40 rows. Of 18 training
    # rows the ten draws take 8 of 9 a label, so most likely all of them.
    assert plan.texts in range(5 + 6 + 16 + 2 + 40, 5 + 6 + 18 + 2 + 40 + 1)


def test_calibration_measures_a_real_run_and_leaves_nothing(study_config, tmp_path):
    config = study_config(seeds=[0], keep_adapters=True)
    lines = []
    plan = plan_study(config, tmp_path / "none", device="cpu", notify=lines.append)
    assert lines == ["Calibrating on tiny: model5, seed 0: 3 steps, a few texts"]
    assert [row.runs for row in plan.rows] == [1, 1]
    assert all(row.seconds > 0 and row.kept_bytes > 0 for row in plan.rows)
    assert plan.disk_bytes > sum(row.kept_bytes for row in plan.rows)
    # 2 steps x 4 pairs, each of two texts of at least "weir 0" and EOS, and at most 24 tokens.
    assert 8 * 2 * 7 <= plan.rows[0].train_tokens <= 8 * 2 * 24
    assert not (tmp_path / "none").exists()


def test_a_score_of_a_study_is_reproduced_where_its_model_was_kept(study_config, tmp_path):
    one = {"variants": [{"name": "model1"}], "seeds": [0]}
    run_study(study_config(**one, keep_adapters=True), tmp_path / "kept", device="cpu")
    run_study(study_config(**one), tmp_path / "gone", device="cpu")
    [model] = tmp_path.glob("kept/runs/*/model")
    [kept], [gone] = (tmp_path.glob(f"{name}/results/*/pairs.json") for name in ("kept", "gone"))
    assert reproduce(kept).gap == 0
    assert reproduce(gone, model=str(model)).gap == 0
    with pytest.raises(UsageError, match=r"unless keep_adapters is true.* --model DIR"):
        reproduce(gone)
