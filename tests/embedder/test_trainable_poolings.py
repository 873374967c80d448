"""Poolings with weights against arithmetic done by hand, and their options."""

import pytest
import torch
import torch.nn.functional as F

from embedder.pooling import POOLINGS, PoolingOptions, build_pooling
from embedder.pooling.registry import PoolingShape
from retrieval.errors import UsageError

WIDTH = 8
SHAPE = PoolingShape(WIDTH, 3)
TRAINABLE = [name for name, entry in POOLINGS.items() if entry.trainable]


def states(length: int = 3) -> torch.Tensor:
    return torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(1))


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_identity_start_of_a_latent_query_pooling_reads_one_key_unchanged() -> None:
    """One key: softmax is 1, value and output are the identity, the latents' mean is added."""
    module = build_pooling("last_layer", SHAPE, PoolingOptions(latents=4, head_width=4))
    x = states(1)
    expected = F.layer_norm(x[:, 0], (WIDTH,)) + module.latents.mean(dim=0)
    torch.testing.assert_close(module(x, everywhere(x)), expected)


def test_equal_keys_average_the_context() -> None:
    """Zeroed keys make every score 0, so each of the three positions weighs 1/3."""
    module = build_pooling("multi_layer", SHAPE, PoolingOptions(latents=2, head_width=8))
    torch.nn.init.zeros_(module.attend.key.weight)
    torch.nn.init.zeros_(module.latents)
    x = states()
    expected = F.layer_norm(x, (WIDTH,)).mean(dim=1)
    torch.testing.assert_close(module(x, everywhere(x)), expected)


def test_the_layer_weight_matrix_is_added_to_its_layer() -> None:
    module = build_pooling("multi_layer", SHAPE, PoolingOptions(latents=2))
    x = states()
    shifted = x.clone()
    shifted[:, 1] += 2.0
    before = module(shifted, everywhere(x))
    with torch.no_grad():
        module.layer_weights[1] += 2.0
    torch.testing.assert_close(module(x, everywhere(x)), before)


def test_identity_start_of_latent_attention_is_the_mean_over_tokens() -> None:
    module = build_pooling("latent_attention", SHAPE, PoolingOptions())
    x = states(5)
    torch.testing.assert_close(module(x, everywhere(x)), x.mean(dim=1))


@pytest.mark.parametrize("name", ["last_layer", "latent_attention"])
def test_masked_tokens_do_not_reach_the_vector(name: str) -> None:
    module = build_pooling(name, SHAPE, PoolingOptions(init="random"))
    x = states(5)
    mask = everywhere(x)
    mask[:, 3:] = False
    garbage = x.clone()
    garbage[:, 3:] = 1e4
    torch.testing.assert_close(module(garbage, mask), module(x[:, :3], mask[:, :3]))


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_seed_alone_decides_the_first_weights(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        options = PoolingOptions(init="random", seed=seed)
        module = build_pooling(name, SHAPE, options)
        return torch.cat([p.flatten() for p in module.parameters()])

    torch.manual_seed(5)
    first = weights(1)
    torch.manual_seed(6)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_building_a_pooling_leaves_the_random_state_as_it_was() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_pooling("multi_layer", SHAPE, PoolingOptions())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_weight_gets_a_gradient(name: str) -> None:
    module = build_pooling(name, SHAPE, PoolingOptions(init="random", latents=3, head_width=4))
    x = states()
    module(x, everywhere(x)).square().sum().backward()
    silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_number_of_latents_heads_and_layer_weights_are_options() -> None:
    options = PoolingOptions(latents=5, heads=2, head_width=6, feedforward_multiple=3)
    module = build_pooling("multi_layer", SHAPE, options)
    assert module.latents.shape == (5, WIDTH)
    assert module.attend.key.weight.shape == (12, WIDTH)
    assert module.feedforward.expand.weight.shape == (2 * 3 * WIDTH, WIDTH)
    assert module.layer_weights.shape == (3, WIDTH)
    without = PoolingOptions(layer_weights=False)
    assert build_pooling("multi_layer", SHAPE, without).layer_weights is None


@pytest.mark.parametrize(
    ("pooling", "options", "message"),
    [
        ("mean", {"latents": 3}, "has no option latents"),
        ("last_layer", {"layers": (1,)}, "has no option layers"),
        ("latent_attention", {"reads": "eos"}, "has no option reads"),
    ],
)
def test_an_option_that_the_pooling_does_not_use_is_refused(
    pooling: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_pooling(pooling, SHAPE, PoolingOptions(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 0}, "latents is 0"),
        ({"heads": -1}, "heads is -1"),
        ({"init": "zeros"}, "accepted: identity, random"),
        ({"reads": "all"}, "accepted: auto, eos, tokens"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PoolingOptions(**options)
