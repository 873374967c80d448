from collections import Counter

import pytest

from embedder.training.batch import BatchSampler
from retrieval.errors import UsageError


def test_an_epoch_sees_every_pair_once():
    sampler = BatchSampler([5, 7], [1.0, 1.0], 4, seed=0)
    assert sampler.steps_per_epoch == 3
    seen = Counter(place for step in range(3) for place in sampler.batch(step))
    assert seen == Counter([(0, i) for i in range(5)] + [(1, i) for i in range(7)])


def test_a_batch_depends_on_seed_and_step_alone():
    walked = BatchSampler([50, 30], [1.0, 2.0], 8, seed=3)
    in_order = [walked.batch(step) for step in range(60)]
    for step in (59, 0, 31, 17, 58):
        assert BatchSampler([50, 30], [1.0, 2.0], 8, seed=3).batch(step) == in_order[step]
        assert walked.batch(step) == in_order[step]
    other = BatchSampler([50, 30], [1.0, 2.0], 8, seed=4)
    assert [other.batch(step) for step in range(60)] != in_order


def test_epochs_differ_and_leftovers_are_seen_before_any_pair_comes_again():
    sampler = BatchSampler([10], [1.0], 4, seed=0)  # 2 steps an epoch, 2 pairs left over
    drawn = [index for step in range(5) for _, index in sampler.batch(step)]
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) != drawn[:10]


def test_a_weight_of_two_shows_each_pair_twice_as_often():
    sampler = BatchSampler([10, 10], [1.0, 2.0], 5, seed=0)
    assert sampler.steps_in(1) == 6
    seen = Counter(source for step in range(6) for source, _ in sampler.batch(step))
    assert seen == {0: 10, 1: 20}


def test_a_batch_can_be_of_one_source():
    sampler = BatchSampler([20, 40], [1.0, 1.0], 10, seed=1, one_source_per_batch=True)
    batches = [sampler.batch(step) for step in range(6)]
    assert all(len({source for source, _ in batch}) == 1 for batch in batches)
    assert sorted(batch[0][0] for batch in batches) == [0, 0, 1, 1, 1, 1]
    assert len({place for batch in batches for place in batch}) == 60


def test_weights_that_leave_no_batch_are_refused():
    with pytest.raises(UsageError, match="the weights leave 1 pair in an epoch"):
        BatchSampler([8], [0.1], 8, seed=0)
