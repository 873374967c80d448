"""The rule of the verdicts on made-up results, and the tests behind it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.scoring.results import Result
from benchmarks.study.claims import CLAIMS, judge_claim, judge_test, paper_variants
from benchmarks.study.runs import list_runs
from benchmarks.study.scores import ALL_TASK_TYPES, BaseScores, TaskTypeTest, correct_tests
from retrieval import Fingerprint

ALPHA, MARGIN = 0.05, 0.01


def made_up(
    difference, low, high, p=0.001, seeds=None, names=("model5", "model1"), task_type="sts"
):
    """A corrected test; every seed has the difference of the whole unless told otherwise."""
    first, second = names
    seeds = [difference] * 3 if seeds is None else seeds
    return TaskTypeTest("tiny", task_type, first, second, difference, low, high, p, p, seeds)


BETTER = made_up(0.05, 0.03, 0.07)
WORSE = made_up(-0.05, -0.07, -0.03)
TINY_GAIN = made_up(0.004, 0.002, 0.006)
NARROW_NOTHING = made_up(0.001, -0.004, 0.006, p=0.7)
WIDE_NOTHING = made_up(0.02, -0.03, 0.07, p=0.4)
ONE_SEED_AGAINST = made_up(0.05, 0.03, 0.07, seeds=[0.09, 0.08, -0.02])
UNTESTED = made_up(0.05, 0.03, 0.07, p=math.nan)
NO_WIDTH = made_up(0.0, 0.0, 0.0, p=1.0)
ONE_SEED_GAINS = made_up(0.001, -0.004, 0.006, p=0.7, seeds=[-0.01, -0.01, 0.023])
GAIN_ASTRIDE = made_up(0.02, 0.005, 0.035)


@pytest.mark.parametrize(
    ("kind", "test", "word"),
    [
        ("better", BETTER, "holds"),
        ("better", TINY_GAIN, "holds"),  # significant, if small
        ("better", WORSE, "does not hold"),
        ("better", NARROW_NOTHING, "does not hold"),  # 0.006 < 0.01: no gain that matters
        ("better", WIDE_NOTHING, "cannot tell"),
        ("better", ONE_SEED_AGAINST, "cannot tell"),
        ("better", UNTESTED, "cannot tell"),
        ("better", NO_WIDTH, "cannot tell"),  # both at the ceiling, or items that say nothing
        ("better", ONE_SEED_GAINS, "cannot tell"),  # 0.023 of one seed is above 0.01
        ("no better", NO_WIDTH, "cannot tell"),
        ("no better", ONE_SEED_GAINS, "cannot tell"),
        ("no better", BETTER, "does not hold"),
        ("no better", WORSE, "holds"),
        ("no better", NARROW_NOTHING, "holds"),
        ("no better", WIDE_NOTHING, "cannot tell"),
        ("no better", ONE_SEED_AGAINST, "cannot tell"),
        ("no better", TINY_GAIN, "does not hold"),  # it is better, if by little
        ("little gain", TINY_GAIN, "holds"),
        ("little gain", WORSE, "holds"),
        ("little gain", BETTER, "does not hold"),  # all of 0.03 to 0.07 is above 0.01
        ("little gain", GAIN_ASTRIDE, "cannot tell"),  # 0.005 to 0.035 holds 0.01
        ("little gain", ONE_SEED_AGAINST, "cannot tell"),
    ],
)
def test_the_rule_decides_one_comparison(kind, test, word):
    assert judge_test(kind, test, MARGIN, ALPHA).word == word


def test_a_reason_holds_the_numbers_that_decide():
    assert judge_test("better", ONE_SEED_AGAINST, MARGIN, ALPHA).reason == (
        "model5 against model1, STS: +0.0500 (+0.0300 to +0.0700), corrected p 0.001, above 0 "
        "with 2 of 3 seeds."
    )


@pytest.fixture
def config(study_config):
    return study_config(
        variants=[{"name": f"model{number}"} for number in (1, 2, 3, 4, 5)], seeds=[0, 1, 2]
    )


def verdict(config, number, chosen, parameters=135e6):
    """Judge a claim where each comparison is the made-up test that ``chosen`` names."""
    claim = CLAIMS[number - 1]
    tests = {
        (*pair, task_type): replace(
            chosen(*pair, task_type), first=pair[0], second=pair[1], task_type=task_type
        )
        for pair in claim.pairs
        for task_type in claim.task_types
    }
    return judge_claim(claim, paper_variants(config), tests, config, parameters)


def test_a_claim_holds_where_all_of_its_comparisons_do(config):
    word, judgements = verdict(config, 1, lambda *asked: BETTER)
    assert word == "holds"
    # models 4 and 5, each in STS and retrieval
    assert [one.word for one in judgements] == ["holds"] * 4


def test_one_comparison_that_does_not_hold_is_enough(config):
    word, judgements = verdict(
        config, 3, lambda one, two, f: WORSE if f == "sts" and one == "model3" else BETTER
    )
    assert word == "does not hold"
    assert sorted(one.word for one in judgements) == ["does not hold"] + ["holds"] * 3


def test_one_comparison_that_cannot_be_told_leaves_the_claim_open(config):
    word, _ = verdict(config, 2, lambda one, two, f: WIDE_NOTHING if one == "model2" else WORSE)
    assert word == "cannot tell"


def test_the_claim_on_small_bases_is_not_judged_on_a_large_one(config):
    assert verdict(config, 4, lambda *asked: TINY_GAIN)[0] == "holds"
    word, [only] = verdict(config, 4, lambda *asked: TINY_GAIN, parameters=7.2e9)
    assert word == "cannot tell"
    assert "this one's are 7.2 billion" in only.reason


def test_a_design_that_is_not_in_the_study_is_named(study_config):
    config = study_config()
    word, judgements = judge_claim(CLAIMS[2], paper_variants(config), {}, config, 1e8)
    assert word == "cannot tell"
    assert "model3 and model2 is not in the study" in judgements[0].reason


def test_an_ablation_is_not_taken_for_the_papers_model(study_config):
    variants = [
        {"name": "few", "variant": "model5", "options": {"latents": 2}},
        {"name": "part", "variant": "model5", "layers": "last third"},
        {"name": "model1"},
        {"name": "whole", "variant": "multi_layer+bidirectional"},
    ]
    assert paper_variants(study_config(variants=variants)) == {
        "model1": "model1",
        "model5": "whole",
    }


def test_all_tests_are_corrected_together():
    """Holm of 0.01, 0.02 and 0.5: 3 x 0.01, 2 x 0.02, 1 x 0.5; no test is not counted."""
    raw = [made_up(0.1, 0, 0.2, p=p) for p in (0.02, math.nan, 0.5, 0.01)]
    found = [one.p_corrected for one in correct_tests(raw)]
    assert found[0] == pytest.approx(0.04)
    assert math.isnan(found[1])
    assert found[2:] == pytest.approx([0.5, 0.03])


def result(run, task, task_type, metric, items, score):
    ids = [str(n) for n in range(len(next(iter(items.values()))))]
    mark = Fingerprint(run.name, {"model": run.name})
    return Result(run.name, task, task_type, metric, {metric: score}, ids, items, mark, {}, {}, "")


def scored(config, items):
    """Scores of a study with one retrieval task whose items are given by (variant, seed)."""
    runs = list_runs(config)
    results = {
        run.name: [
            result(
                run,
                "ponds",
                "retrieval",
                "ndcg@10",
                {"ndcg@10": items[run.variant, run.seed]},
                float(np.mean(items[run.variant, run.seed])),
            )
        ]
        for run in runs
    }
    return BaseScores("tiny", config, runs, results)


def test_items_are_averaged_over_seeds_before_the_paired_test(study_config):
    """Each seed alone differs on one query of four; their mean differs on both by 0.5.

    Random signs of (0.5, 0.5, 0, 0): of 4 assignments of the two that count, 2 are as extreme.
    """
    items = {
        ("model1", 0): [0, 0, 0, 0],
        ("model1", 1): [0, 0, 0, 0],
        ("model5", 0): [1, 0, 0, 0],
        ("model5", 1): [0, 1, 0, 0],
    }
    found = scored(study_config(), items).compare("model5", "model1", "retrieval")
    assert found.difference == pytest.approx(0.25)
    assert found.p == pytest.approx(0.5)
    assert found.seed_differences == pytest.approx([0.25, 0.25])


def test_the_seeds_deviation_stands_beside_the_mean(study_config):
    """Scores 0.25 and 0.75: mean 0.5, deviation sqrt(2 x 0.25^2 / 1) = 0.3536."""
    items = {("model1", 0): [0, 0, 0, 0], ("model1", 1): [0, 0, 0, 0]}
    items |= {("model5", 0): [1, 0, 0, 0], ("model5", 1): [1, 1, 1, 0]}
    found = scored(study_config(), items).task_type_score("model5", "retrieval")
    assert found.score == pytest.approx(0.5)
    assert found.seed_deviation == pytest.approx(0.35355, abs=1e-5)
    assert found.low < 0.5 < found.high


def test_tasks_of_a_task_type_weigh_the_same_whatever_their_size(study_config):
    """A gain of 0.4 on 2 queries and none on 8 others is 0.2 over the two tasks."""
    config = study_config(seeds=[0])
    results = {}
    for run in list_runs(config):
        few = [0.5, 0.5] if run.variant == "model5" else [0.1, 0.1]
        results[run.name] = [
            result(run, "few", "retrieval", "ndcg@10", {"ndcg@10": few}, few[0]),
            result(run, "many", "retrieval", "ndcg@10", {"ndcg@10": [0.3] * 8}, 0.3),
        ]
    scores = BaseScores("tiny", config, list_runs(config), results)
    found = scores.compare("model5", "model1", "retrieval")
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))
    assert scores.compare("model5", "model1", ALL_TASK_TYPES).difference == pytest.approx(0.2)
    assert math.isnan(scores.task_type_score("model5", "retrieval").seed_deviation)


def test_sts_is_the_mean_of_the_seeds_correlations_not_that_of_their_mean_cosine(study_config):
    """One seed ranks all pairs right (1), one all wrong (-1): the mean is 0."""
    config = study_config()
    gold = [0.0, 1.0, 2.0, 3.0]
    rows = {
        ("model1", 0): ([4.0, 3.0, 2.0, 1.0], -1.0),
        ("model1", 1): ([0.1, 0.2, 0.3, 0.4], 1.0),
        ("model5", 0): (gold, 1.0),
        ("model5", 1): (gold, 1.0),
    }
    results = {}
    for run in list_runs(config):
        cosine, score = rows[run.variant, run.seed]
        items = {"cosine": cosine, "gold": gold}
        results[run.name] = [result(run, "pairs", "sts", "spearman", items, score)]
    found = BaseScores("tiny", config, list_runs(config), results)
    assert found.task_type_score("model1", "sts").score == pytest.approx(0.0)
    assert found.compare("model5", "model1", "sts").difference == pytest.approx(1.0)
    assert found.compare("model5", "model1", "sts").seed_differences == pytest.approx([2.0, 0.0])


def test_a_variant_without_a_score_on_a_task_is_not_compared(study_config):
    config = study_config(seeds=[0])
    runs = list_runs(config)
    results = {
        runs[0].name: [
            result(runs[0], "ponds", "retrieval", "ndcg@10", {"ndcg@10": [0.5, 0.5]}, 0.5)
        ]
    }
    scores = BaseScores("tiny", config, runs, results)
    assert scores.compare("model5", "model1", "retrieval") is None
    assert scores.task_type_score("model5", "retrieval") is None
