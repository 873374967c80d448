import numpy as np
import pytest

from benchmarks.significance.paired import crossed_test

stats = pytest.importorskip("scipy.stats", reason="the bench extra is not installed")


def test_a_table_of_two_texts_by_two_draws_by_hand():
    # Differences [[4, 2], [2, 0]]: rows 3 and 1, columns 3 and 1, mean 2. Each variance is 2 and
    # each part 2 / 2 = 1, so t = 2 / sqrt(1 + 1) with (1 + 1)**2 / (1 / 1 + 1 / 1) = 2 degrees.
    found = crossed_test([3.0, 1.0], [3.0, 1.0])
    assert found.p == pytest.approx(2 * stats.t.sf(2**0.5, 2))
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 2) * 2**0.5)


def test_its_square_is_the_min_f_of_both_factors():
    table = np.random.default_rng(1).normal(0.4, 1, (30, 10))
    by_item, by_draw = table.mean(axis=1), table.mean(axis=0)
    one, two = (stats.ttest_1samp(x, 0).statistic ** 2 for x in (by_item, by_draw))
    least = one * two / (one + two)
    freedom = (one + two) ** 2 / (one**2 / 9 + two**2 / 29)
    assert crossed_test(by_item, by_draw).p == pytest.approx(stats.f.sf(least, 1, freedom))


def test_without_items_it_is_students_test_of_the_draws():
    draws = [0.1, 0.3, 0.2, 0.5]
    assert crossed_test([], draws).p == pytest.approx(stats.ttest_1samp(draws, 0).pvalue)


def test_equal_models_have_p_one_and_a_constant_difference_has_no_test():
    assert crossed_test([0.0, 0.0], [0.0, 0.0]).p == 1
    assert np.isnan(crossed_test([0.1, 0.1], [0.1, 0.1]).p)


@pytest.mark.parametrize("draws", [[], [np.nan]])
def test_no_draw_and_nan_are_refused(draws):
    with pytest.raises(ValueError, match="by_draw"):
        crossed_test([1.0], draws)


def test_equal_models_are_called_different_at_most_as_often_as_alpha():
    # Effects of texts and of draws on the difference, both random: 1,000 tables, at most 5% plus
    # three standard errors of 0.7%.
    chance = np.random.default_rng(2)
    rejected = 0
    for _ in range(1000):
        table = chance.normal(0, 1, (40, 1)) + chance.normal(0, 0.5, (1, 10))
        table = table + chance.normal(0, 2, (40, 10))
        rejected += crossed_test(table.mean(axis=1), table.mean(axis=0)).p < 0.05
    assert 5 < rejected <= 71
