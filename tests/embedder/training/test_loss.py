"""InfoNCE against numbers worked by hand."""

import math
import random

import pytest
import torch

from embedder.training.data import KnownPairs, Pair
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


def matches(queries, positives, negatives=(), elsewhere=()):
    """Mask a batch of pairs, where the data holds further pairs ``elsewhere``."""
    pairs = [Pair(*texts) for texts in [*zip(queries, positives, strict=True), *elsewhere]]
    return known_matches(KnownPairs.of(pairs), queries, positives, negatives).tolist()


def test_a_duplicate_of_a_positive_is_masked_for_its_own_query_only():
    found = matches(["a", "b", "c"], ["same", "Same ", "other"])
    assert found == [[False, True, False], [True, False, False], [False, False, False]]


def test_a_hard_negative_that_is_another_querys_positive_is_masked_for_that_query():
    found = matches(["a", "b"], ["left", "right"], ["right", "wrong"])
    assert found == [[False] * 4, [False, False, True, False]]


def test_a_repeated_query_has_all_its_positives_masked_and_no_text_is_its_own_negative():
    found = matches(["a", "a", "b"], ["left", "right", "a"])
    assert found == [[False, True, True], [True, False, True], [False, False, False]]


def test_a_positive_that_only_a_pair_outside_the_batch_names_is_masked():
    found = matches(["q1", "q2"], ["p1", "p2"], ["p2"], elsewhere=[("q1", "p2"), ("q3", "p1")])
    assert found == [[False, True, True], [False, False, True]]


def test_the_mask_of_a_large_batch_is_the_one_that_comparing_texts_gives():
    draw = random.Random(0)
    pairs = [Pair(f"q{draw.randrange(30)}", f"p{draw.randrange(30)}") for _ in range(300)]
    batch, negatives = pairs[:40], [f"p{draw.randrange(40)}" for _ in range(20)]
    right = {(pair.query, pair.positive) for pair in pairs}
    texts = [*(pair.positive for pair in batch), *negatives]
    expected = [
        [(pair.query, text) in right and row != place for place, text in enumerate(texts)]
        for row, pair in enumerate(batch)
    ]
    queries = [pair.query for pair in batch]
    found = known_matches(KnownPairs.of(pairs), queries, texts[:40], negatives).tolist()
    assert found == expected
    assert any(map(any, expected))


def test_the_loss_of_a_batch_leaves_out_a_positive_that_another_pair_names():
    # Cosines of q1: 0.5 with p1, 1 with p2; of q2: -0.866 with p1, 0 with p2.
    queries, positives = rows([1.0, 0.0], [0.0, 1.0]), rows([0.5, -(0.75**0.5)], [1.0, 0.0])
    scale = 4.0
    masked = torch.tensor(matches(["q1", "q2"], ["p1", "p2"], elsewhere=[("q1", "p2")]))
    # q1 has its own positive alone: loss 0. q2: logits -4 * 0.866 and 0, right is 0.
    right = math.log(1 + math.exp(-scale * 0.75**0.5))
    found = info_nce(queries, positives, scale=scale, masked=masked)
    assert found.item() == pytest.approx(right / 2, abs=1e-6)
    # Without the mask q1 loses log(1 + e^2) on top: logits 2 and 4, right is 2.
    without = info_nce(queries, positives, scale=scale)
    assert without.item() == pytest.approx((math.log(1 + math.e**2) + right) / 2, abs=1e-6)
