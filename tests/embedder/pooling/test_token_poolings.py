"""Parameter-free poolings against arithmetic done by hand."""

import pytest
import torch

from embedder.pooling import POOLINGS, PoolingOptions, build_pooling
from embedder.pooling.registry import PoolingShape

STATES = torch.tensor([[[1.0, 8.0], [4.0, 2.0], [7.0, -1.0]]])
NAN = float("nan")

EXPECTED = {
    "eos": [7.0, -1.0],
    "cls": [1.0, 8.0],
    "prompt_eos": [7.0, -1.0],
    "mean": [4.0, 3.0],  # (1+4+7)/3, (8+2-1)/3
    "max": [7.0, 8.0],
    "weighted_mean": [5.0, 1.5],  # (1*1+2*4+3*7)/6, (1*8+2*2+3*-1)/6
    "layer_mean": [4.0, 3.0],  # the same mean, where the three rows are layers
}


def pool(name, states, mask):
    module = build_pooling(name, PoolingShape(states.shape[-1], 1), PoolingOptions())
    return module(states, torch.tensor(mask).bool())


def test_every_parameter_free_pooling_has_an_expected_value():
    assert set(EXPECTED) == {name for name, entry in POOLINGS.items() if not entry.trainable}


@pytest.mark.parametrize("name", EXPECTED)
def test_pooling_gives_the_value_worked_by_hand(name):
    torch.testing.assert_close(pool(name, STATES, [[1, 1, 1]]), torch.tensor([EXPECTED[name]]))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", EXPECTED)
def test_padding_is_ignored_even_where_it_holds_nan(name, side):
    padding = torch.full((1, 2, 2), NAN)
    parts = [padding, STATES] if side == "left" else [STATES, padding]
    mask = [0, 0, 1, 1, 1] if side == "left" else [1, 1, 1, 0, 0]
    found = pool(name, torch.cat(parts, dim=1), [mask])
    torch.testing.assert_close(found, torch.tensor([EXPECTED[name]]))


def test_rows_of_different_length_are_pooled_independently():
    states = torch.stack([STATES[0], STATES[0]])
    found = pool("mean", states, [[1, 1, 1], [1, 1, 0]])
    torch.testing.assert_close(found, torch.tensor([[4.0, 3.0], [2.5, 5.0]]))
