"""The tests of the tests: hand-worked numbers, exact enumeration, simulated nulls and power."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from benchmarks.significance.bootstrap import (
    _draw_items,
    bootstrap_means,
    bootstrap_spearman,
    percentile_interval,
    shifted_bootstrap_p,
)
from benchmarks.significance.correction import adjust_benjamini_hochberg, adjust_holm
from benchmarks.significance.paired import (
    EXACT_ITEMS,
    effect_size,
    paired_t_test,
    randomisation_test,
    smallest_wilcoxon_p,
    wilcoxon_test,
)
from retrieval.scores import spearman

NAN = math.nan
SIMULATIONS = 400
SIGN_TESTS = [randomisation_test, wilcoxon_test]
MEAN_TESTS = [lambda d: randomisation_test(d, resamples=999), wilcoxon_test, paired_t_test]
MEAN_TEST_NAMES = ["randomisation", "wilcoxon", "t"]


def enumerate_signs(whole_numbers):
    """The exact p-value in whole numbers, where nothing is rounded."""
    observed = abs(sum(whole_numbers))
    signs = list(itertools.product((1, -1), repeat=len(whole_numbers)))
    sums = [sum(s * v for s, v in zip(row, whole_numbers, strict=True)) for row in signs]
    return sum(abs(total) >= observed for total in sums) / len(signs)


def binomial_range(probability):
    """What 99.9% of the counts of so many simulations lie in."""
    return stats.binom.interval(0.999, SIMULATIONS, probability)


# --- randomisation -------------------------------------------------------------------------------


def test_randomisation_of_three_by_hand():
    # +-0.3 +-0.1 +-0.1: sums 0.5, 0.3, 0.3, 0.1, -0.1, -0.3, -0.3, -0.5. Observed: 0.3 + 0.1 -
    # 0.1 = 0.3. At least as far from 0: all but 0.1 and -0.1, so 6 of 8.
    assert randomisation_test([0.3, 0.1, -0.1]) == 6 / 8


@pytest.mark.parametrize("items", range(1, 11))
def test_randomisation_equals_enumeration_also_with_zeros_and_rounding(items):
    generator = np.random.default_rng(items)
    for _ in range(5):
        whole = generator.integers(-4, 5, items).tolist()
        # Tenths are rounded in binary, so equal sums differ in the last digits.
        assert randomisation_test(np.array(whole) / 10) == enumerate_signs(whole)


def test_random_signs_agree_with_enumeration():
    whole = np.random.default_rng(1).integers(-3, 5, EXACT_ITEMS + 2)
    whole[whole == 0] = 1
    exact = randomisation_test(whole, resamples=2 ** len(whole))  # so many that all are looked at
    drawn = randomisation_test(whole, resamples=20_000)
    assert 0.01 < exact < 0.5
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_enumeration_is_used_up_to_the_number_of_resamples():
    values = np.ones(20)
    assert randomisation_test(values, resamples=2**20) == 2 / 2**20
    assert randomisation_test(values, resamples=2**20 - 1) != 2 / 2**20


@pytest.mark.parametrize("items", [17, 300, 2_000])
def test_randomisation_is_never_zero(items):
    # No random assignment of 300 equal differences is as extreme as the data: (0 + 1) / (999 + 1).
    p = randomisation_test(np.full(items, 0.1), resamples=999)
    assert p == pytest.approx(1 / 1000, abs=1 / 1000 if items == 17 else 1e-15)
    assert p > 0


def test_equal_systems_have_p_one():
    zeros = np.zeros(40)
    assert [test(zeros) for test in (*SIGN_TESTS, paired_t_test)] == [1.0, 1.0, 1.0]
    assert effect_size(zeros) == 0.0


@pytest.mark.parametrize("items", [3, 12, 40])
@pytest.mark.parametrize("test", [*SIGN_TESTS, paired_t_test])
def test_swapping_the_systems_changes_no_p_value(test, items):
    values = np.random.default_rng(items).normal(0.2, 1, items)
    assert test(values) == pytest.approx(test(-values), rel=1e-12)


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(0.2, 1, 40)
    first, again, other = (randomisation_test(values, resamples=999, seed=s) for s in (1, 1, 2))
    assert first == again != other
    rows = values[None]
    first, again, other = (bootstrap_means(rows, resamples=9, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_default_takes_less_than_a_second_for_300_queries():
    values = np.random.default_rng(0).normal(size=300)
    start = time.process_time()
    randomisation_test(values)
    assert time.process_time() - start < 1.0


def test_memory_does_not_grow_with_resamples_times_queries():
    # 10,000 queries x 1,000 resamples x 8 bytes are 80 MB.
    values = np.random.default_rng(0).normal(size=10_000)
    tracemalloc.start()
    randomisation_test(values, resamples=1_000)
    bootstrap_means(values[None], resamples=1_000)
    bootstrap_spearman(values[None], values, resamples=1_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("values", [[], [[0.1]], [0.1, NAN], [math.inf]])
@pytest.mark.parametrize("test", [*SIGN_TESTS, paired_t_test, effect_size])
def test_what_are_no_differences_is_refused(test, values):
    with pytest.raises(ValueError, match="one row of at least one finite number"):
        test(values)


def test_no_resamples_are_refused():
    for call in (
        lambda: randomisation_test([0.1], resamples=0),
        lambda: bootstrap_means([[0.1]], resamples=0),
    ):
        with pytest.raises(ValueError, match="must be 1 or more"):
            call()


# --- Wilcoxon, t, effect size --------------------------------------------------------------------


def test_wilcoxon_of_four_by_hand():
    # Ranks 1, 2, 3, 4; the one negative has rank 3. As extreme: negative ranks that sum to 3 or
    # less, {}, {1}, {2}, {3}, {1,2}, and their mirror images: 10 of 16.
    assert wilcoxon_test([0.1, 0.2, -0.3, 0.4]) == 10 / 16


def test_wilcoxon_ranks_a_zero_before_leaving_it_out():
    # The zero takes rank 1, the others 2, 3, 4, 5 with 4 negative. As extreme: negative ranks that
    # sum to 4 or less, {}, {2}, {3}, {4}, and their mirror images: 8 of 16.
    assert wilcoxon_test([0.1, 0.2, -0.3, 0.4, 0.0]) == 8 / 16


def test_wilcoxon_sees_a_tie_through_rounding():
    # 0.3 - 0.2 is 0.09999999999999998. As ties, 0.1 and -0.1 have rank 1.5 each, and 0.4 rank 3:
    # signed sum 3. As extreme: +-3 +-1.5 +-1.5 is 6, 3, 3, 0, 0, -3, -3, -6: 6 of 8. Without the
    # tie the sum were 3 + 2 - 1 or 3 + 1 - 2, 4 of 8 or 6 of 8, whichever has the larger rank.
    assert wilcoxon_test([0.1, -(0.3 - 0.2), 0.4]) == 6 / 8
    assert wilcoxon_test([-0.1, 0.3 - 0.2, 0.4]) == 6 / 8


@pytest.mark.parametrize("items", [2, 5, 9, 16, 17, 30])
def test_wilcoxon_without_ties_is_scipys_exact_test(items):
    values = np.random.default_rng(items).normal(0.3, 1, items)
    assert wilcoxon_test(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue)


@pytest.mark.parametrize("items", [2, 5, 10])
def test_wilcoxons_smallest_p_is_reached_when_all_agree(items):
    assert wilcoxon_test(np.arange(1, items + 1)) == smallest_wilcoxon_p(items) == 2 / 2**items


def test_smallest_p_of_five_tasks_and_of_very_many():
    assert smallest_wilcoxon_p(5) == 0.0625
    assert smallest_wilcoxon_p(1) == 1.0
    assert smallest_wilcoxon_p(10_000) == 0.0


def test_wilcoxon_with_many_ties_and_zeros_is_near_random_signs():
    generator = np.random.default_rng(5)
    values = generator.integers(-2, 4, 60)
    ranks = stats.rankdata(np.abs(values)) * np.sign(values)
    drawn = randomisation_test(ranks, resamples=20_000)
    assert 0.001 < drawn < 0.5
    assert wilcoxon_test(values) == pytest.approx(drawn, abs=0.02)


def test_t_of_three_by_hand():
    # Mean 2, standard deviation 1: t = 2 sqrt(3), t**2 = 12. With 2 degrees of freedom
    # p = 1 - t / sqrt(2 + t**2) = 1 - sqrt(12 / 14).
    assert paired_t_test([1, 2, 3]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert effect_size([1, 2, 3]) == pytest.approx(2.0)
    assert effect_size([-1, -2, -3]) == pytest.approx(-2.0)


@pytest.mark.parametrize("values", [[0.1, 0.1, 0.1], [0.3 - 0.2, 0.1], [0.5]])
def test_t_and_effect_are_undefined_without_spread(values):
    assert math.isnan(paired_t_test(values))
    assert math.isnan(effect_size(values))


# --- bootstrap -----------------------------------------------------------------------------------


def test_bootstrap_means_are_means_of_the_drawn_items_the_same_for_every_system():
    scores = np.array([[0.0, 1.0, 5.0], [1.0, 2.0, 6.0]])  # the second is 1 above the first
    first, second = bootstrap_means(scores, resamples=2_000)
    assert second - first == pytest.approx(np.ones(2_000))
    # All 27 draws of three: 3 x the mean is 0, 1, 2, 3, 5, 6, 7, 10, 11 or 15; and the mean of all
    # means is 2 with standard error sqrt(14 / 3 / 3 / 2000) = 0.028.
    assert set(np.round(first * 3, 9)) == {0, 1, 2, 3, 5, 6, 7, 10, 11, 15}
    assert first.mean() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("tied", [False, True])
def test_bootstrap_spearman_is_scipys_correlation_of_the_drawn_pairs(tied):
    generator = np.random.default_rng(3)
    gold = generator.integers(0, 6, 50) / 5
    score = gold + generator.normal(0, 0.5, 50)
    score = np.round(score, 1) if tied else score
    found = bootstrap_spearman([score, -score], gold, resamples=30, seed=4)
    order = np.argsort(gold, kind="stable")  # the pairs are drawn in the order of the gold scores
    drawn = np.concatenate([rows for _, rows in _draw_items(50, 30, 4)])
    expected = [stats.spearmanr(score[order][d], gold[order][d]).statistic for d in drawn]
    assert found[0] == pytest.approx(expected, abs=1e-12)
    assert found[1] == pytest.approx(-found[0], abs=1e-12)


def test_spearman_by_hand_and_with_ties():
    # Ranks 1, 2, 3 and 1, 3, 2: 1 - 6 (0 + 1 + 1) / (3 x 8) = 0.5.
    assert spearman([0.1, 0.2, 0.9], [1, 3, 2]) == pytest.approx(0.5)
    first, second = [1, 1, 2, 3, 3], [5, 4, 4, 9, 1]
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)


def test_spearman_of_a_constant_is_undefined():
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(bootstrap_spearman([[1, 1, 1]], [1, 2, 3], resamples=9)).all()
    drawn = bootstrap_spearman([[1, 2]], [1, 2], resamples=200)
    # Two pairs: a resample holds one pair twice (undefined) or both (1).
    assert np.isnan(drawn).sum() == pytest.approx(100, abs=35)
    assert set(drawn[~np.isnan(drawn)]) == {1.0}


def test_gold_of_another_length_is_refused():
    with pytest.raises(ValueError, match="gold has 2 values for 3 items"):
        bootstrap_spearman([[1, 2, 3]], [1, 2])


def test_percentiles_leave_half_of_alpha_at_each_end():
    samples = np.append(np.arange(101.0), NAN)
    assert percentile_interval(samples, 0.1) == (5.0, 95.0)
    assert np.isnan(percentile_interval([NAN, NAN], 0.1)).all()


def test_the_shifted_bootstrap_by_hand():
    # Shifted by 0.3: -0.2, -0.1, 0, 0.1, 0.5. One is 0.3 or more from 0: (1 + 1) / (5 + 1).
    assert shifted_bootstrap_p(0.3, [0.1, 0.2, 0.3, 0.4, 0.8]) == 2 / 6
    assert shifted_bootstrap_p(0.3, [0.1, 0.2, 0.3, 0.4, NAN]) == 2 / 6
    assert shifted_bootstrap_p(0.3, [0.3] * 9) == 1 / 10  # never 0
    assert shifted_bootstrap_p(0.0, [0.0, 0.1]) == 1.0
    assert math.isnan(shifted_bootstrap_p(NAN, [0.1]))


def test_swapping_the_systems_changes_no_sts_p_value():
    generator = np.random.default_rng(8)
    gold, first, second = generator.normal(size=(3, 60))
    samples = bootstrap_spearman([first, second], gold, resamples=500)
    observed = spearman(first, gold) - spearman(second, gold)
    there = shifted_bootstrap_p(observed, samples[0] - samples[1])
    assert there == shifted_bootstrap_p(-observed, samples[1] - samples[0])


# --- corrections ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "holm", "benjamini_hochberg"),
    [
        # Sorted 0.005, 0.01, 0.03, 0.04. Holm: x4 0.02, x3 0.03, x2 0.06, x1 0.04, raised to 0.06.
        # BH: x4/1 0.02, x4/2 0.02, x4/3 0.04, x4/4 0.04.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02], [0.02, 0.04, 0.04, 0.02]),
        # NaN is no test: the same without it.
        ([0.01, NAN, 0.04], [0.02, NAN, 0.04], [0.02, NAN, 0.04]),
        # Holm: 1.2 capped, then 0.9 raised to it. BH: 1.2 lowered to the 0.9 after it.
        ([0.6, 0.9], [1.0, 1.0], [0.9, 0.9]),
        ([0.2], [0.2], [0.2]),
        ([NAN], [NAN], [NAN]),
        ([], [], []),
    ],
)
def test_corrections_by_hand(raw, holm, benjamini_hochberg):
    assert adjust_holm(raw) == pytest.approx(holm, nan_ok=True)
    assert adjust_benjamini_hochberg(raw) == pytest.approx(benjamini_hochberg, nan_ok=True)


def test_corrections_keep_the_order_and_never_lower_a_p_value():
    for seed in range(20):
        raw = np.random.default_rng(seed).beta(0.5, 2, 25)
        for adjust in (adjust_holm, adjust_benjamini_hochberg):
            adjusted = adjust(raw)
            assert (adjusted >= raw).all()
            assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
            assert adjusted.max() <= 1
        assert adjust_benjamini_hochberg(raw) == pytest.approx(stats.false_discovery_control(raw))
        assert (adjust_holm(raw) >= adjust_benjamini_hochberg(raw) - 1e-15).all()


@pytest.mark.parametrize("raw", [[1.1], [-0.1], [[0.5]]])
def test_what_are_no_p_values_is_refused(raw):
    for adjust in (adjust_holm, adjust_benjamini_hochberg):
        with pytest.raises(ValueError, match="between 0 and 1"):
            adjust(raw)


def test_holm_bounds_the_chance_of_any_false_discovery():
    # 10 true nulls a family: a family is wrong if its smallest corrected p is at most 0.05.
    generator = np.random.default_rng(2)
    wrong = sum(adjust_holm(generator.uniform(size=10)).min() <= 0.05 for _ in range(SIMULATIONS))
    low, high = binomial_range(0.05)
    assert low <= wrong <= high


# --- simulated data sets -------------------------------------------------------------------------


def draw_scores(generator, items=40, shift=0.0):
    """Two systems on queries of very different difficulty, scores cut at 0 and 1 as nDCG is."""
    easy = generator.beta(0.7, 0.7, items)
    noise = generator.normal(0, 0.15, (2, items))
    return np.clip(easy + noise[0] + shift, 0, 1), np.clip(easy + noise[1], 0, 1)


def draw_sts(generator, noise, items=200):
    """Gold scores in steps, and the cosines of two systems with so much noise each.

    The bootstrap is an approximation for many pairs; with 60 it rejects too few.
    """
    gold = generator.integers(0, 26, items) / 5
    shared = generator.normal(0, 0.5, items)
    return gold, [gold + shared + generator.normal(0, size, items) for size in noise]


def compare_sts(gold, systems):
    """The p-value, and the bootstrapped differences."""
    first, second = bootstrap_spearman(systems, gold, resamples=500)
    observed = spearman(systems[0], gold) - spearman(systems[1], gold)
    return shifted_bootstrap_p(observed, first - second), first - second


@pytest.mark.parametrize("test", MEAN_TESTS, ids=MEAN_TEST_NAMES)
def test_one_null_in_twenty_is_rejected(test):
    generator = np.random.default_rng(11)
    rejected = sum(test(np.subtract(*draw_scores(generator))) <= 0.05 for _ in range(SIMULATIONS))
    low, high = binomial_range(0.05)
    assert low <= rejected <= high


@pytest.fixture(scope="module")
def sts_nulls():
    """Whether p is at most 0.05 and whether the interval holds 0, for equally good systems."""
    generator = np.random.default_rng(12)
    found = []
    for _ in range(SIMULATIONS):
        gold, systems = draw_sts(generator, (1, 1))
        p, samples = compare_sts(gold, systems)
        low, high = percentile_interval(samples, 0.05)
        found.append((p <= 0.05, low <= 0 <= high))
    return np.array(found)


def test_one_sts_null_in_twenty_is_rejected(sts_nulls):
    low, high = binomial_range(0.05)
    assert low <= sts_nulls[:, 0].sum() <= high


def test_an_interval_of_equal_correlations_holds_zero_19_times_in_20(sts_nulls):
    low, high = binomial_range(0.95)
    assert low <= sts_nulls[:, 1].sum() <= high


@pytest.mark.parametrize("test", MEAN_TESTS, ids=MEAN_TEST_NAMES)
def test_a_known_shift_is_found(test):
    # The shift of 0.1 is about half a standard deviation of the differences (0.15 x sqrt 2): for
    # 40 pairs that is a power of about 0.85, less what cutting the scores at 1 takes.
    generator = np.random.default_rng(13)
    found = sum(test(np.subtract(*draw_scores(generator, shift=0.1))) <= 0.05 for _ in range(200))
    assert found >= 0.7 * 200


def test_a_known_difference_of_correlations_is_found():
    generator = np.random.default_rng(14)
    found = sum(compare_sts(*draw_sts(generator, (1, 1.5)))[0] <= 0.05 for _ in range(100))
    assert found >= 0.7 * 100


def test_a_95_percent_interval_holds_the_truth_19_times_in_20():
    generator = np.random.default_rng(15)
    held = 0
    for _ in range(SIMULATIONS):
        first = 0.3 + generator.gamma(2, 0.1, 40)  # mean 0.3 + 2 x 0.1
        second = 0.1 + generator.gamma(2, 0.1, 40)
        samples = bootstrap_means([first, second], resamples=1_000)
        low, high = percentile_interval(samples[0] - samples[1], 0.05)
        held += low <= 0.2 <= high
    least, most = binomial_range(0.95)
    assert least <= held <= most
