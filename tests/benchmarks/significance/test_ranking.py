import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.significance.compare import compare
from benchmarks.significance.comparison import CompareConfig
from benchmarks.significance.paired import randomisation_test, wilcoxon_test
from benchmarks.significance.ranking import rank_models, wilcoxon_tests
from retrieval.errors import UsageError
from tests.benchmarks.significance.test_comparing import make

pytest.importorskip("scipy.stats", reason="the bench extra is not installed")

QUICK = CompareConfig(resamples=2_000)


def imported(model, task, score, **changes):
    """An imported score: no items."""
    parts = {"item_ids": [], "items": {}, "metrics": {"ndcg@10": score}, "source": {"format": "x"}}
    return make(model, task, [score], **(parts | changes))


def make_board(levels, tasks=20, spread=0.01, seed=0):
    """Models of the given levels on tasks that are equally hard for all, with noise."""
    chance = np.random.default_rng(seed)
    hard = chance.uniform(0, 0.3, tasks)
    return [
        imported(f"m{n}", f"t{t}", level + hard[t] + chance.normal(0, spread))
        for n, level in enumerate(levels)
        for t in range(tasks)
    ]


@pytest.mark.parametrize("items", [8, 20, 60])
@pytest.mark.parametrize("kind", ["plain", "ties", "zeros"])
def test_many_rows_at_once_have_the_p_of_one_at_a_time(items, kind):
    rows = np.random.default_rng(items).normal(0.3, 1, (5, items))
    rows = {"plain": rows, "ties": rows.round(1), "zeros": np.where(rows < 0.2, 0, rows)}[kind]
    one_by_one = [wilcoxon_test(row) for row in rows]
    # SciFy chooses exact without ties where one row is given; with them both are approximate.
    assert wilcoxon_tests(rows) == pytest.approx(one_by_one, rel=0.2, abs=2e-3)


def test_three_levels_of_models_make_three_groups():
    ranking = rank_models(make_board([0.2, 0.6, 0.4, 0.601, 0.401, 0.201]), QUICK)
    assert [(row.group, row.rank) for row in ranking.rows] == [
        (1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)
    ]  # fmt: skip
    assert {row.model for row in ranking.rows[:2]} == {"m1", "m3"}
    assert (ranking.rows[0].low, ranking.rows[0].high) == (1, 2)
    assert all(row.imported for row in ranking.rows)
    assert ranking.grouped and not ranking.hierarchical
    assert len(ranking.tests) == 15


def test_models_of_equal_scores_share_the_interval_of_their_ranks():
    board = make_board([0.6, 0.2])
    twins = [replace(one, model=name) for name in ("a", "b") for one in board if one.model == "m1"]
    ranking = rank_models([*board, *twins], QUICK)
    intervals = {row.model: (row.low, row.high) for row in ranking.rows}
    assert intervals == {"m0": (1, 1), "m1": (2, 4), "a": (2, 4), "b": (2, 4)}


def test_neighbours_or_a_baseline_alone_are_tested_and_corrected():
    board = make_board([0.2, 0.6, 0.4])
    ranking = rank_models(board, CompareConfig(adjacent=True, resamples=2_000))
    assert [(one.first, one.second) for one in ranking.tests] == [("m1", "m2"), ("m2", "m0")]
    # Twenty differences of one sign: 2 of 2**20 each, times 2 and then times 1.
    assert ranking.tests[0].p == pytest.approx(2 / 2**20)
    assert [one.p_corrected for one in ranking.tests] == pytest.approx([4 / 2**20] * 2)
    assert ranking.tests[0].p_permutation == 1 / 2_001
    scores = {(one.model, one.task): one.main_score for one in board}
    apart = [scores["m2", f"t{n}"] - scores["m0", f"t{n}"] for n in range(20)]
    assert ranking.tests[1].p_permutation == randomisation_test(apart, resamples=2_000)
    ranking = rank_models(board, CompareConfig(baseline="m2", resamples=2_000))
    assert [(one.first, one.second) for one in ranking.tests] == [("m1", "m2"), ("m2", "m0")]
    with pytest.raises(UsageError, match="choose one"):
        CompareConfig(adjacent=True, baseline="m2")


def test_too_few_tasks_make_no_groups_and_the_note_has_the_arithmetic():
    # 5 tasks: no p below 2 / 2**5 = 0.0625.
    ranking = rank_models(make_board([0.2, 0.6], tasks=5), QUICK)
    assert (ranking.grouped, ranking.smallest_p) == (False, 0.0625)
    assert [row.group for row in ranking.rows] == [0, 0]
    assert "5 tasks give no p below 0.062, and 1 pair" in ranking.notes[0]
    assert ranking.notes[1].startswith("None of the 1 test over 5 tasks could be significant")


def test_a_model_that_lacks_a_task_is_not_ranked_and_the_note_names_the_task():
    board = [one for one in make_board([0.2, 0.4, 0.6]) if (one.model, one.task) != ("m1", "t3")]
    ranking = rank_models(board, QUICK)
    assert [row.model for row in ranking.rows] == ["m2", "m0"]
    assert ranking.notes == [
        "1 model without a score on every task is not ranked (m1); 1 of them lacks t3"
    ]


def test_items_are_resampled_too_where_all_models_have_them():
    chance = np.random.default_rng(1)
    results = [
        make(model, f"t{task}", chance.uniform(0, 1, 30).tolist())
        for model in "ab"
        for task in range(4)
    ]
    assert rank_models(results, QUICK).hierarchical
    assert not rank_models([*results[:-1], imported("b", "t3", 0.5)], QUICK).hierarchical


def test_one_task_or_one_whole_model_is_no_ranking():
    assert rank_models(make_board([0.2, 0.4], tasks=1), QUICK) is None
    assert rank_models(make_board([0.2]), QUICK) is None
    board = [imported("a", "t", math.nan), imported("a", "u", 0.1), imported("b", "t", 0.2)]
    assert rank_models(board, QUICK) is None


def test_compare_takes_scores_without_items_over_tasks_alone():
    found = compare(make_board([0.2, 0.6, 0.4]), QUICK)
    assert (list(found.differences), found.notes) == ([], [])
    assert [row.model for row in found.ranking.rows] == ["m1", "m2", "m0"]


def test_the_order_of_equal_models_is_called_real_at_most_as_often_as_alpha():
    # 100 boards of 6 equal models on 20 tasks: a second group in at most 5% plus three standard
    # errors of 2.2%.
    split = 0
    for seed in range(100):
        board = make_board([0.4] * 6, seed=seed, spread=0.05)
        split += rank_models(board, QUICK).rows[-1].group > 1
    assert split <= 11
