"""Scores checked against sums worked by hand, and against scipy."""

import math

import numpy as np
import pytest

from retrieval.scores import cosines, is_constant, ndcg, pearson, spearman

TIED = ([1, 1, 2, 3, 3], [5, 4, 4, 9, 1])


def test_spearman_is_the_correlation_of_ranks():
    assert spearman([1, 2, 3], [10, 200, 201]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6.
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)


def test_equal_values_share_the_mean_of_their_ranks():
    # Ranks 1.5 1.5 3 against 1 2 3: deviations (-.5 -.5 1) and (-1 0 1), 1.5 / sqrt(1.5 * 2).
    assert spearman([0, 0, 5], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))


def test_pearson_by_hand():
    # Deviations (-.4, 0, 0, .4): the product is 1.2, the squares .32 and 5.
    expected = 1.2 / math.sqrt(0.32 * 5)
    assert pearson([0.1, 0.5, 0.5, 0.9], [1, 2, 3, 4]) == pytest.approx(expected)
    assert pearson([1, 2, 3], [2, 4, 6]) == 1


@pytest.mark.parametrize("sides", [TIED, TIED[::-1], (np.arange(50) % 7, np.arange(50) ** 2 % 11)])
def test_correlations_are_those_of_scipy(sides):
    stats = pytest.importorskip("scipy.stats", reason="the bench extra is not installed")
    assert spearman(*sides) == pytest.approx(stats.spearmanr(*sides).statistic, abs=1e-12)
    assert pearson(*sides) == pytest.approx(stats.pearsonr(*sides).statistic, abs=1e-12)


@pytest.mark.parametrize("measure", [pearson, spearman])
@pytest.mark.parametrize("constant", [[1, 1, 1], [1.0, 1.0 - 6e-8, 1.0 + 1.2e-7]])
def test_a_constant_side_has_no_correlation(measure, constant):
    assert math.isnan(measure(constant, [1, 2, 3]))
    assert math.isnan(measure([1, 2, 3], constant))


@pytest.mark.parametrize("measure", [pearson, spearman])
def test_rows_of_another_length_are_refused(measure):
    with pytest.raises(ValueError, match="expected two rows of equal length"):
        measure([1, 2, 3], [1, 2])


def test_rounding_of_float32_is_constant_and_a_real_difference_is_not():
    assert is_constant([1.0, 1.0 - 6e-8, 1.0 + 1.2e-7])
    assert not is_constant([0.99999, 1.0])


def test_cosine_of_rows_and_of_a_zero_vector():
    left = np.array([[1, 0], [3, 4], [0, 0]], dtype=np.float32)
    right = np.array([[1, 1], [6, 8], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosines(left, right), [1 / math.sqrt(2), 1, 0], atol=1e-7)


def test_ndcg_discounts_gains_by_rank():
    # Gains 0, 2, 1: (2 / log2(3) + 1 / 2) / (2 + 1 / log2(3)).
    found = ndcg([2, 0, 1], {0: 2, 1: 1}, 10)
    assert found == pytest.approx((2 / math.log2(3) + 0.5) / (2 + 1 / math.log2(3)))


def test_a_document_after_rank_ten_has_no_gain():
    assert ndcg(range(20), {10: 1}, 10) == 0
    assert ndcg(range(20), {9: 1}, 10) == pytest.approx(1 / math.log2(11))


def test_only_judgements_above_zero_have_a_gain():
    assert ndcg(["a", "b"], {"a": -1, "b": 0}, 10) == 0
    assert ndcg(["a", "b"], {"a": -1, "b": 1}, 10) == pytest.approx(1 / math.log2(3))
