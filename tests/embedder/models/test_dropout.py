"""Dropout with quickly drawn masks: its rate, its mean, its gradients, its random state."""

import math

import pytest
import torch
from torch import nn

from embedder import Embedder, VariantSpec
from embedder.models.lora import LoraOptions, WordDropout, add_adapter


@pytest.mark.parametrize("rate", [0.1, 0.37, 0.9])
def test_the_share_dropped_and_the_mean_are_those_of_dropout(rate):
    torch.manual_seed(0)
    dropped = WordDropout(rate)(torch.ones(1_000, 1_001))
    count = dropped.numel()
    share = (dropped == 0).sum().item() / count
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / count)
    kept = dropped[dropped != 0]
    assert torch.equal(kept, torch.full_like(kept, kept[0].item()))
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-3)


def test_elements_are_dropped_independently():
    """Neighbours share a random word; each row and each place in a word must not show it."""
    torch.manual_seed(1)
    kept = (WordDropout(0.5)(torch.ones(4_000, 64)) != 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(64, dtype=torch.float64)
    assert correlation.abs().max() < 5.5 / math.sqrt(4_000)


def test_the_gradient_passes_through_the_same_mask():
    torch.manual_seed(2)
    given = torch.randn(50, 33, requires_grad=True)
    dropped = WordDropout(0.3)(given)
    dropped.sum().backward()
    mask = dropped.detach() / given.detach()
    torch.testing.assert_close(given.grad, mask)
    assert (given.grad == 0).any() and (given.grad > 1).any()


def test_the_same_random_state_gives_the_same_mask_and_moves_on():
    module, ones = WordDropout(0.5), torch.ones(7, 13)
    torch.manual_seed(3)
    first, second = module(ones), module(ones)
    torch.manual_seed(3)
    assert torch.equal(module(ones), first)
    assert torch.equal(module(ones), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_keeps_the_dtype_and_any_shape(dtype):
    for shape in [(), (0, 4), (1,), (3, 5, 7)]:
        dropped = WordDropout(0.1)(torch.ones(shape, dtype=dtype))
        assert dropped.dtype == dtype and dropped.shape == shape


def test_nothing_is_dropped_outside_training_or_at_rate_zero():
    given = torch.randn(5, 5)
    assert torch.equal(WordDropout(0.5).eval()(given), given)
    assert torch.equal(WordDropout(0.0)(given), given)


def test_lora_layers_use_it(base_folder):
    spec = VariantSpec(base=str(base_folder["llama"]), pooling="mean", attention="causal")
    backbone = Embedder.from_spec(spec, device="cpu").backbone
    add_adapter(backbone, LoraOptions(rank=2, dropout=0.25))
    found = [module for module in backbone.modules() if isinstance(module, nn.Dropout)]
    lora = [module for module in found if isinstance(module, WordDropout)]
    assert len(lora) == 7 * backbone.layer_count
    assert all(module.p == 0.25 for module in lora)


def test_no_dropout_stays_none(base_folder):
    spec = VariantSpec(base=str(base_folder["llama"]), pooling="mean", attention="causal")
    backbone = Embedder.from_spec(spec, device="cpu").backbone
    add_adapter(backbone, LoraOptions(rank=2, dropout=0.0))
    assert not any(isinstance(module, WordDropout) for module in backbone.modules())
