"""InfoNCE against numbers worked by hand."""

import math

import pytest
import torch

from embedder.training.loss import info_nce, known_matches

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def rows(*vectors):
    return torch.tensor(vectors)


def test_the_loss_is_the_cross_entropy_of_scaled_cosines():
    # Query 1: logits 2, 0; query 2: logits 0, 2. Both lose log(1 + e^-2).
    found = info_nce(rows(EAST, NORTH), rows(EAST, NORTH), scale=2.0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_length_does_not_count():
    short = info_nce(rows(EAST, NORTH), rows(NORTH, EAST), scale=3.0)
    long = info_nce(rows([9.0, 0.0], [0.0, 0.1]), rows([0.0, 4.0], EAST), scale=3.0)
    torch.testing.assert_close(short, long)


def test_hard_negatives_are_negatives_of_every_query():
    # One query, its positive at cosine 0, one negative at cosine -1: log(1 + e^-5).
    found = info_nce(rows(EAST), rows(NORTH, WEST), scale=5.0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-5)), abs=1e-6)
    # Two queries, both right at cosine 1, the others at 0, the hard negative at -1 and 0.
    found = info_nce(rows(EAST, NORTH), rows(EAST, NORTH, WEST), scale=1.0)
    first = math.log(math.e + 1 + math.exp(-1)) - 1
    second = math.log(math.e + 1 + 1) - 1
    assert found.item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_a_masked_candidate_counts_for_nothing():
    masked = torch.tensor([[False, False, True]])
    with_it = info_nce(rows(EAST), rows(EAST, NORTH, EAST), scale=1.0, masked=masked)
    without = info_nce(rows(EAST), rows(EAST, NORTH), scale=1.0)
    torch.testing.assert_close(with_it, without)


def test_matryoshka_cuts_then_normalises_then_averages():
    # Cut to 1: both queries and candidates are (1) or (1): cosines all 1, loss log 2.
    queries, candidates = rows([3.0, 4.0], [3.0, -4.0]), rows([3.0, 4.0], [3.0, -4.0])
    # Whole: cosines 1 and (9 - 16) / 25 = -0.28, loss log(1 + e^-1.28).
    found = info_nce(queries, candidates, scale=1.0, dimensions=(1, 2))
    expected = (math.log(2) + math.log(1 + math.exp(-1.28))) / 2
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_symmetric_loss_also_asks_positives_for_their_queries():
    # Logits [[1, 1], [0, 0]]: rows lose log 2 each; columns (1, 0) lose log(1+e^-1), log(1+e).
    queries, candidates = rows(EAST, NORTH), rows(EAST, EAST)
    found = info_nce(queries, candidates, scale=1.0, symmetric=True)
    down = (math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 2
    assert found.item() == pytest.approx((math.log(2) + down) / 2, abs=1e-6)


def test_fewer_candidates_than_queries_are_refused():
    with pytest.raises(ValueError, match="2 queries have 1 candidates"):
        info_nce(rows(EAST, NORTH), rows(EAST), scale=1.0)


def test_a_duplicate_of_a_positive_is_masked_for_its_own_query_only():
    found = known_matches(["a", "b", "c"], ["same", "same ", "other"])
    expected = [[False, True, False], [True, False, False], [False, False, False]]
    assert found.tolist() == expected


def test_a_hard_negative_that_is_another_querys_positive_is_masked_for_that_query():
    found = known_matches(["a", "b"], ["left", "right"], ["right", "wrong"])
    assert found.tolist() == [[False] * 4, [False, False, True, False]]


def test_a_repeated_query_has_all_its_positives_masked_and_no_text_is_its_own_negative():
    found = known_matches(["a", "a", "b"], ["left", "right", "a"])
    assert found.tolist() == [[False, True, True], [True, False, True], [False, False, False]]
