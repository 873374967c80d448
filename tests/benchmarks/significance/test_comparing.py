"""Comparisons of small made-up results, with their arithmetic."""

import math

import numpy as np
import pytest

from benchmarks.scoring.results import Result
from benchmarks.significance.compare import compare
from benchmarks.significance.comparison import CompareConfig
from benchmarks.significance.correction import CORRECTIONS, adjust_holm
from benchmarks.significance.paired import TESTS, randomisation_test
from retrieval import Fingerprint
from retrieval.errors import UnknownNameError, UsageError

NAN = math.nan
STEPS = [0.02, 0.04, 0.06, 0.08, 0.10, 0.12]
QUICK = {"resamples": 999, "bootstrap_resamples": 500}


def make(
    model, task="scifact", values=STEPS, *, task_type="retrieval", metric="ndcg@10", **changes
):
    """A result whose main score is the mean of its items, ids "0", "1" and so on."""
    parts = {
        "model": model,
        "task": task,
        "task_type": task_type,
        "main_metric": metric,
        "metrics": {metric: float(np.mean(values))},
        "item_ids": [str(number) for number in range(len(values))],
        "items": {metric: list(values)},
        "fingerprint": Fingerprint(model, {"name": model}),
        "data": {"sha256": task},
        "settings": {},
        "run_digest": "",
    }
    return Result(**(parts | changes))


def make_sts(model, cosine, gold, score, **changes):
    return make(
        model,
        "stsb",
        cosine,
        task_type="sts",
        metric="spearman",
        metrics={"spearman": score, "pearson": 0.5},
        items={"cosine": list(cosine), "gold": list(gold)},
        **changes,
    )


def run(results, **settings):
    return compare(results, CompareConfig(**(QUICK | settings)))


def plus(values, amount):
    return [value + amount for value in values]


def test_a_pair_by_hand():
    # Differences 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, all one sign: 2 of 2**6 = 0.03125. Their mean
    # is 0.035, their standard deviation sqrt(17.5 / 5) / 100 = 0.0187083.
    found = run([make("a", values=[1.5 * x for x in STEPS]), make("b")])
    [one] = found.differences
    assert (one.task, one.task_type, one.metric) == ("scifact", "retrieval", "ndcg@10")
    assert (one.first, one.second, one.items, one.note) == ("a", "b", 6, "")
    assert (one.first_score, one.second_score) == pytest.approx((0.105, 0.07))
    assert one.difference == pytest.approx(0.035)
    assert one.effect_size == pytest.approx(0.035 / 0.0187083, rel=1e-4)
    assert one.p == one.p_corrected == 0.03125
    assert one.significant
    assert 0.01 < one.low < 0.035 < one.high < 0.06
    assert (found.models, found.tasks, found.task_types, found.notes) == (
        ["a", "b"],
        ["scifact"],
        [],
        [],
    )


def test_all_pairs_are_compared_or_all_with_the_baseline():
    results = [make(model) for model in "abc"]
    names = [(one.first, one.second) for one in run(results).differences]
    assert names == [("a", "b"), ("a", "c"), ("b", "c")]
    found = run(results, baseline="b")
    assert [(one.first, one.second) for one in found.differences] == [("a", "b"), ("c", "b")]
    assert found.config.baseline == "b"
    assert run(results).config.baseline is None


def test_swapping_two_models_turns_the_signs_and_nothing_else():
    generator = np.random.default_rng(0)
    a, b = (make(m, values=generator.uniform(size=40)) for m in "ab")
    [there] = run([a, b]).differences
    [back] = run([b, a]).differences
    assert (there.p, there.low, there.high) == pytest.approx((back.p, -back.high, -back.low))
    assert (there.difference, there.effect_size) == (-back.difference, -back.effect_size)


def test_items_are_matched_by_id_in_any_order():
    other = [0.9, 0.1, 0.5, 0.3, 0.7, 0.2]
    straight = run([make("a"), make("b", values=other)]).differences
    turned = make("b", values=other[::-1], item_ids=[str(n) for n in range(6)][::-1])
    [one], [two] = straight, run([make("a"), turned]).differences
    assert one.p == two.p
    assert (one.effect_size, one.low, one.high) == pytest.approx(
        (two.effect_size, two.low, two.high)
    )
    assert two.note == ""


def test_only_common_items_are_compared_and_the_note_counts_them():
    # "a" has items 0 to 5, "b" 1 to 6: on 1 to 5 "a" scores 0.04 to 0.12, mean 0.08, "b" 0.01 less.
    ids = [str(number) for number in range(1, 7)]
    shifted = make("b", values=[*plus(STEPS[1:], -0.01), 1.0], item_ids=ids)
    [one] = run([make("a"), shifted]).differences
    assert one.items == 5
    assert (one.first_score, one.second_score, one.difference) == pytest.approx((0.08, 0.07, 0.01))
    assert (one.low, one.high) == pytest.approx((0.01, 0.01))
    assert one.p == 2 / 2**5
    assert "only 5 items are in common, of 6 and 6" in one.note


def test_no_common_item_is_an_error_that_says_what_to_type():
    other = make("b", item_ids=list("uvwxyz"))
    with pytest.raises(UsageError, match=r"'a' and 'b' have no item of 'scifact'.*millpond bench"):
        run([make("a"), other])


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"values": [0.5], "item_ids": ["0"]}, "one item, so there is no test"),
        ({"values": [NAN, 0.1], "metrics": {"ndcg@10": 0.1}}, "score of an item is undefined"),
        ({"metrics": {"ndcg@10": NAN}}, "a score is undefined"),
        ({"items": {}}, "no scores of single items were kept"),
    ],
)
def test_where_no_test_is_possible_p_is_nan_and_the_note_says_why(changes, note):
    found = run([make("a", **changes), make("b", **changes), make("a", "nq"), make("b", "nq")])
    one, other = found.differences
    assert math.isnan(one.p)
    assert math.isnan(one.p_corrected)
    assert not one.significant
    assert note in one.note
    assert other.p == 1.0  # and the others are as they were


@pytest.mark.parametrize("items", [{}, {"ndcg@10": []}])
def test_a_result_without_any_item_is_not_tested(items):
    changes = {"item_ids": [], "items": items, "metrics": {"ndcg@10": 0.4}}
    [one] = run([make("a", **changes), make("b", **changes)]).differences
    assert (one.difference, one.items, math.isnan(one.p)) == (0.0, 0, True)


def test_too_few_items_for_alpha_are_noted():
    values = STEPS[:5]
    [one] = run([make("a", values=plus(values, 0.1)), make("b", values=values)]).differences
    assert one.p == 2 / 2**5
    assert not one.significant
    assert one.note == "5 items: p cannot be below 0.0625"


def test_t_over_equal_differences_is_undefined_and_noted():
    [one] = run([make("a", values=plus(STEPS, 0.1)), make("b")], test="t").differences
    assert math.isnan(one.p)
    assert "t is undefined" in one.note


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_every_test_and_correction_tells_a_clear_difference_from_none(test, correction):
    generator = np.random.default_rng(3)
    values = generator.uniform(0.2, 0.6, 60)
    better = values + generator.normal(0.2, 0.05, 60)
    same = values + generator.normal(0, 0.05, 60)
    results = [make("a", values=better), make("b", values=values), make("c", values=same)]
    found = run(results, test=test, correction=correction)
    assert (found.config.test, found.config.correction) == (test, correction)
    assert [one.significant for one in found.differences] == [True, True, False]


# --- STS -----------------------------------------------------------------------------------------


def draw_sts(noise, items=200):
    generator = np.random.default_rng(4)
    gold = generator.integers(0, 26, items) / 5
    return gold, [gold + generator.normal(0, size, items) for size in noise]


def test_sts_compares_spearman_by_a_bootstrap():
    gold, (good, poor) = draw_sts((0.5, 3))
    [one] = run([make_sts("a", good, gold, 0.95), make_sts("b", poor, gold, 0.45)]).differences
    assert (one.metric, one.items, math.isnan(one.effect_size)) == ("spearman", 200, True)
    assert one.difference == pytest.approx(0.5)
    assert one.p == 1 / 501  # no resample of 500 is as far from the observed difference as 0 is
    assert 0.2 < one.low < one.high < 0.8
    assert one.significant


def test_equal_sts_results_have_p_one():
    gold, (good, _) = draw_sts((0.5, 3))
    [one] = run([make_sts(model, good, gold, 0.9) for model in "ab"]).differences
    assert (one.p, one.low, one.high) == (1.0, 0.0, 0.0)


def test_an_undefined_correlation_is_not_tested():
    gold, (good, _) = draw_sts((0.5, 3))
    constant = make_sts("b", np.ones(200), gold, NAN)
    [one] = run([make_sts("a", good, gold, 0.9), constant]).differences
    assert math.isnan(one.p)
    assert math.isnan(one.difference)
    assert one.note == "a score is undefined, so there is no test"


def test_sts_items_are_matched_by_id():
    gold, (good, poor) = draw_sts((0.5, 3))
    ids = [str(number) for number in range(200)]
    turned = make_sts("b", poor[::-1], gold[::-1], 0.4, item_ids=ids[::-1])
    [one] = run([make_sts("a", good, gold, 0.9), turned]).differences
    [two] = run([make_sts("a", good, gold, 0.9), make_sts("b", poor, gold, 0.4)]).differences
    assert (one.p, one.low, one.high) == pytest.approx((two.p, two.low, two.high))


def test_different_gold_scores_are_refused():
    gold, (good, poor) = draw_sts((0.5, 3))
    with pytest.raises(UsageError, match="different gold scores for 'stsb'"):
        run([make_sts("a", good, gold, 0.9), make_sts("b", poor, gold[::-1], 0.4)])


# --- task types and corrections -----------------------------------------------------------------


def make_tasks(count, **settings):
    """Two models on so many tasks; the first is better by 0.1, 0.2 and so on."""
    tasks = [f"task{number}" for number in range(1, count + 1)]
    steps = [0.1 * number for number in range(1, count + 1)]
    return [
        *(
            make("a", task, plus(STEPS, step), **settings)
            for task, step in zip(tasks, steps, strict=True)
        ),
        *(make("b", task, **settings) for task in tasks),
    ]


def test_five_tasks_cannot_be_significant_and_the_note_says_so():
    [task_type] = run(make_tasks(5)).task_types
    assert task_type.p == task_type.smallest_p == 0.0625  # all five have one sign: 2 of 2**5
    assert not task_type.significant
    assert task_type.note == "5 tasks: p cannot be below 0.0625"
    assert task_type.tasks == [f"task{number}" for number in range(1, 6)]
    # The mean of 0.1 to 0.5 is 0.3, above a mean of 0.07.
    assert (task_type.first_mean, task_type.second_mean) == pytest.approx((0.37, 0.07))
    assert task_type.difference == pytest.approx(0.3)


def test_six_tasks_can_be():
    found = run(make_tasks(6), correction="benjamini-hochberg")
    [task_type] = found.task_types
    assert (task_type.p, task_type.note) == (2 / 2**6, "")
    # All seven p-values are 0.03125, so the correction changes none of them.
    assert (task_type.p_corrected, task_type.significant) == (0.03125, True)


def test_a_task_type_needs_two_tasks_and_defined_scores():
    assert run(make_tasks(1)).task_types == []
    undefined = [make(model, "task9", metrics={"ndcg@10": NAN}) for model in "ab"]
    assert run([*make_tasks(1), *undefined]).task_types == []
    [task_type] = run([*make_tasks(2), *undefined]).task_types
    assert task_type.tasks == ["task1", "task2"]


def test_task_types_are_kept_apart_in_their_usual_order():
    clusters = [
        make(model, task, task_type="clustering", metric="v_measure")
        for model in "ab"
        for task in ("news", "posts")
    ]
    found = run([*clusters, *make_tasks(2)])
    assert [(one.task_type, one.tasks) for one in found.task_types] == [
        ("retrieval", ["task1", "task2"]),
        ("clustering", ["news", "posts"]),
    ]


def test_a_correction_covers_a_task_type_or_all_tests():
    others = [
        make(m, "news", plus(STEPS, x), task_type="clustering") for m, x in (("a", 1), ("b", 0))
    ]
    results = [*make_tasks(1), *others]
    assert [one.p_corrected for one in run(results).differences] == [0.03125] * 2
    assert [one.p_corrected for one in run(results, family="all").differences] == [0.0625] * 2


def make_draws(model, by_item, by_draw, **changes):
    """A classification result; ``by_draw`` is None for one of the time before texts were items."""
    draws = {} if by_draw is None else {"accuracy": by_draw, "macro_f1": by_draw}
    parts = {"task_type": "classification", "metric": "accuracy", "draws": draws}
    return make(model, "banking", by_item, **(parts | changes))


def test_classification_is_tested_over_texts_and_draws_and_survives_many_models():
    # 18 models make 153 pairs: signs of 10 draws end at 2 / 2**10 x 153 = 0.3, texts do not.
    chance = np.random.default_rng(3)
    right = chance.random((18, 200, 10)) < np.linspace(0.3, 0.9, 18)[:, None, None]
    results = [
        make_draws(f"m{n:02}", one.mean(axis=1), one.mean(axis=0).tolist())
        for n, one in enumerate(right)
    ]
    found = run(results)
    best_and_worst = found.differences[16]
    assert (best_and_worst.first, best_and_worst.second) == ("m00", "m17")
    assert best_and_worst.significant and best_and_worst.items == 200
    assert best_and_worst.low < -0.6 < best_and_worst.high < 0
    assert found.notes == []


def test_macro_f1_has_no_value_for_one_text_and_is_tested_over_draws():
    results = [
        make_draws(m, STEPS, plus([0.1, 0.2, 0.4], gap), metrics={"accuracy": 0.5, "macro_f1": gap})
        for m, gap in (("a", 0.25), ("b", 0.0))
    ]
    [one] = run(results, metric="macro_f1").differences
    assert math.isnan(one.p) and one.note.startswith("tested over draws of training examples alone")


def test_results_by_draw_and_by_text_are_not_tested_against_each_other():
    [one] = run([make_draws("a", STEPS, [0.1, 0.2]), make_draws("b", STEPS, None)]).differences
    assert math.isnan(one.p)
    assert one.note.startswith("one was scored by text and the other, earlier, by draw")


def test_the_correction_runs_over_differences_and_task_types_together_without_nan():
    found = run([*make_tasks(6), make("a", "one", [0.1]), make("b", "one", [0.2])])
    rows = [*found.differences, *found.task_types]
    raw = [one.p for one in rows]
    # Six tasks with 6 equal signs, 0.03125 each; one item, no test; one task type of 7 tasks.
    assert raw[:6] == [0.03125] * 6
    assert math.isnan(raw[6])
    assert [one.p_corrected for one in rows] == pytest.approx(adjust_holm(raw), nan_ok=True)
    assert found.differences[0].p_corrected == 7 * 0.03125


def test_a_task_type_that_can_never_be_significant_does_not_count_in_the_correction():
    found = run(make_tasks(2))
    [task_type] = found.task_types
    assert task_type.p == task_type.smallest_p == 0.5  # 2 of 2**2
    assert math.isnan(task_type.p_corrected)
    assert found.differences[0].p_corrected == 2 * 0.03125  # of 2 tests, not 3


# --- metrics, gaps, notes ------------------------------------------------------------------------


def with_recall(result, values=STEPS):
    metrics = {**result.metrics, "recall@100": float(np.mean(values)), "mrr": 0.5}
    items = {**result.items, "recall@100": list(values)}
    return make(result.model, result.task, metrics=metrics, items=items)


def test_a_named_metric_is_compared_where_it_is_and_the_rest_is_noted():
    gold, (good, poor) = draw_sts((0.5, 3))
    results = [
        with_recall(make("a"), plus(STEPS, 0.5)),
        with_recall(make("b")),
        make_sts("a", good, gold, 0.9),
        make_sts("b", poor, gold, 0.4),
        with_recall(make("a", "nq")),
        make("b", "nq"),
    ]
    found = run(results, metric="recall@100")
    [one] = found.differences
    assert (one.metric, one.task) == ("recall@100", "scifact")
    assert one.difference == pytest.approx(0.5)
    assert found.notes == [
        "Left out, since 'recall@100' is not among their scores: stsb",
        "b has no 'recall@100' on nq",
    ]


def test_spearman_may_be_named():
    gold, (good, poor) = draw_sts((0.5, 3))
    sts = [make_sts("a", good, gold, 0.9), make_sts("b", poor, gold, 0.4)]
    [one] = run([*sts, make("a"), make("b")], metric="spearman").differences
    assert one.task == "stsb"


@pytest.mark.parametrize("metric", ["recall@10", "mrr", "pearson"])
def test_a_metric_that_no_result_keeps_by_item_is_unknown(metric):
    results = [with_recall(make("a")), with_recall(make("b"))]
    with pytest.raises(UnknownNameError, match=r"Accepted: ndcg@10, recall@100\."):
        run(results, metric=metric)


def test_other_main_metrics_are_not_compared():
    results = [*make_tasks(1), make("a", "nq"), make("b", "nq", metric="ndcg@5")]
    found = run(results)
    assert [one.task for one in found.differences] == ["task1"]
    assert "'ndcg@10', that of 'b' is 'ndcg@5'" in found.notes[0]


def test_a_model_that_lacks_tasks_is_noted():
    found = run([*make_tasks(2), make("c", "task2")])
    assert found.notes[0] == "c has no result on task1"
    assert [(one.task, one.first, one.second) for one in found.differences] == [
        ("task1", "a", "b"),
        ("task2", "a", "b"),
        ("task2", "a", "c"),
        ("task2", "b", "c"),
    ]


def test_two_names_of_one_model_are_noted():
    one = Fingerprint("x", {"weights": 1})
    assert run([make("a", fingerprint=one), make("b", fingerprint=one)]).notes == [
        "These are one model: a, b"
    ]


def test_draws_of_one_test_set_are_noted():
    results = [make(m, "banking", task_type="classification", metric="accuracy") for m in "ab"]
    [note] = run(results).notes
    assert note.startswith("Classification is tested over draws of one data set")


def test_too_few_items_for_the_correction_are_noted():
    # 6 items: no p below 0.03125; with two tasks 0.0625. Their task type can never count.
    found = run(make_tasks(2))
    [note] = found.notes
    assert note.startswith(
        "No difference could be significant on task1, task2, however large: no p is below 0.031, "
        "and 2 tests are corrected together. Fewer comparisons (--baseline) have a chance"
    )
    assert not any(one.had_a_chance for one in found.differences)
    alone = run(make_tasks(1))
    assert (alone.notes, alone.differences[0].had_a_chance) == ([], True)
    assert run(make_tasks(2), correction="benjamini-hochberg").notes == []


@pytest.mark.parametrize(
    ("resamples", "noted"), [({"resamples": 199}, True), ({"resamples": 999}, False)]
)
def test_too_few_resamples_for_the_correction_are_noted(resamples, noted):
    # 5 models, 10 pairs: 10 / 200 = 0.05 is not below alpha, 10 / 1000 is.
    generator = np.random.default_rng(6)
    results = [make(model, values=generator.uniform(size=30)) for model in "abcde"]
    notes = run(results, **resamples).notes
    assert any("Type: --resamples 1000" in note for note in notes) == noted


# --- the request ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, "alpha is 0; it must be between 0 and 1"),
        ({"alpha": NAN}, "alpha is nan"),
        ({"resamples": 99}, "resamples is 99; it must be 100 or more"),
        ({"bootstrap_resamples": 0}, "bootstrap_resamples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"test": "sign"}, "Unknown test 'sign'. Accepted: randomisation, wilcoxon, t."),
        ({"correction": "bonferroni"}, "Accepted: holm, benjamini-hochberg."),
    ],
)
def test_a_config_that_cannot_be_is_refused(settings, words):
    with pytest.raises(UsageError) as caught:
        CompareConfig(**settings)
    assert words in str(caught.value)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown baseline 'bm52'.*Accepted: bm25, x\."):
        run([make("bm25"), make("x")], baseline="bm52")


@pytest.mark.parametrize("results", [[], [make("a")], [make("a"), make("a", "nq")]])
def test_fewer_than_two_models_are_refused(results):
    with pytest.raises(UsageError, match=r"needs results of two models.*Type: millpond bench"):
        run(results)


def test_models_that_share_no_task_are_refused():
    with pytest.raises(UsageError, match=r"No task has .* two models\. Type: millpond bench"):
        run([make("a"), make("b", "nq")])


def test_a_second_result_of_one_model_and_task_is_refused():
    with pytest.raises(UsageError, match="'a' has two results for 'scifact'"):
        run([make("a"), make("a"), make("b")])


def test_the_seed_decides_and_is_kept():
    generator = np.random.default_rng(7)
    results = [make(model, values=generator.uniform(size=40)) for model in "ab"]
    first, again, other = (run(results, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.differences[0].p != other.differences[0].p
    assert first.differences[0].low != other.differences[0].low
    config = first.config
    assert (config.seed, config.resamples, config.bootstrap_resamples) == (1, 999, 500)


def test_the_p_value_is_the_one_of_the_significance_module():
    generator = np.random.default_rng(8)
    a, b = generator.uniform(size=(2, 40))
    [one] = run([make("a", values=a), make("b", values=b)]).differences
    assert one.p == randomisation_test(a - b, resamples=999, seed=0)


def test_progress_counts_the_pairs():
    counts = []
    compare([make(m) for m in "abc"], CompareConfig(**QUICK), progress=counts.append)
    assert sum(counts) == 3
