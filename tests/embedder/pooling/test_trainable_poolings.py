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


def states(length=3):
    return torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(1))


def everywhere(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


def test_identity_start_of_a_latent_query_pooling_reads_one_key_unchanged():
    """One key: softmax is 1, value and output are the identity, the latents' mean is added."""
    module = build_pooling("last_layer", SHAPE, PoolingOptions(latents=4, head_width=4))
    x = states(1)
    expected = F.layer_norm(x[:, 0], (WIDTH,)) + module.latents.mean(dim=0)
    torch.testing.assert_close(module(x, everywhere(x)), expected)


def test_equal_keys_average_the_context():
    """Zeroed keys make every score 0, so each of the three positions weighs 1/3."""
    module = build_pooling("multi_layer", SHAPE, PoolingOptions(latents=2, head_width=8))
    torch.nn.init.zeros_(module.attend.key.weight)
    torch.nn.init.zeros_(module.latents)
    x = states()
    expected = F.layer_norm(x, (WIDTH,)).mean(dim=1)
    torch.testing.assert_close(module(x, everywhere(x)), expected)


def test_the_layer_weight_matrix_is_added_to_its_layer():
    module = build_pooling("multi_layer", SHAPE, PoolingOptions(latents=2))
    x = states()
    shifted = x.clone()
    shifted[:, 1] += 2.0
    before = module(shifted, everywhere(x))
    with torch.no_grad():
        module.layer_weights[1] += 2.0
    torch.testing.assert_close(module(x, everywhere(x)), before)


def test_identity_start_of_latent_attention_is_the_mean_over_tokens():
    module = build_pooling("latent_attention", SHAPE, PoolingOptions())
    x = states(5)
    torch.testing.assert_close(module(x, everywhere(x)), x.mean(dim=1))


@pytest.mark.parametrize("name", ["last_layer", "latent_attention"])
def test_masked_tokens_do_not_reach_the_vector(name):
    module = build_pooling(name, SHAPE, PoolingOptions(init="random"))
    x = states(5)
    mask = everywhere(x)
    mask[:, 3:] = False
    garbage = x.clone()
    garbage[:, 3:] = 1e4
    torch.testing.assert_close(module(garbage, mask), module(x[:, :3], mask[:, :3]))


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_seed_alone_decides_the_first_weights(name):
    def weights(seed):
        options = PoolingOptions(init="random", seed=seed)
        module = build_pooling(name, SHAPE, options)
        return torch.cat([p.flatten() for p in module.parameters()])

    torch.manual_seed(5)
    first = weights(1)
    torch.manual_seed(6)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_building_a_pooling_leaves_the_random_state_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_pooling("multi_layer", SHAPE, PoolingOptions())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_weight_gets_a_gradient(name):
    sizes = {"latents": 3, "head_width": 4}
    used = {key: value for key, value in sizes.items() if key in POOLINGS[name].accepts}
    module = build_pooling(name, SHAPE, PoolingOptions(init="random", **used))
    x = states()
    module(x, everywhere(x)).square().sum().backward()
    silent = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_number_of_latents_heads_and_layer_weights_are_options():
    options = PoolingOptions(latents=5, heads=2, head_width=6, feedforward_multiple=3)
    module = build_pooling("multi_layer", SHAPE, options)
    assert module.latents.shape == (5, WIDTH)
    assert module.attend.key.weight.shape == (12, WIDTH)
    assert module.feedforward.expand.weight.shape == (2 * 3 * WIDTH, WIDTH)
    assert module.layer_weights.shape == (3, WIDTH)
    without = PoolingOptions(layer_weights=False)
    assert build_pooling("multi_layer", SHAPE, without).layer_weights is None


def test_layer_weights_start_as_the_plain_mean_over_layers():
    module = build_pooling("layer_weights", SHAPE, PoolingOptions())
    x = states()
    torch.testing.assert_close(module(x, everywhere(x)), x.mean(dim=1))


def test_layer_weights_are_a_softmax_of_one_scalar_per_layer():
    """Scalars 0, ln 2 and ln 5 give weights 1/8, 2/8 and 5/8."""
    module = build_pooling("layer_weights", SHAPE, PoolingOptions())
    with torch.no_grad():
        module.scalars.copy_(torch.tensor([1.0, 2.0, 5.0]).log())
    x = torch.zeros(1, 3, WIDTH)
    x[0, :, 0] = torch.tensor([8.0, 4.0, 16.0])  # 8/8 + 4*2/8 + 16*5/8 = 1 + 1 + 10
    found = module(x, everywhere(x))
    assert found[0, 0].item() == pytest.approx(12.0)
    assert module.shares(x, everywhere(x))[0].tolist() == pytest.approx([0.125, 0.25, 0.625])


def test_shares_are_the_attention_that_made_the_vector():
    """Values that only name their layer: the output is the share of each layer."""
    options = PoolingOptions(latents=2, heads=1, head_width=WIDTH, init="random", seed=3)
    module = build_pooling("multi_layer", SHAPE, options)
    x = states()
    shares = module.shares(x, everywhere(x))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    projected, context = module._prepare(x)
    value = module.attend.value(module.attend.context_norm(context))
    each = module.attend.shares(projected, context, everywhere(x))[:, 0]  # (B, latents, layers)
    by_hand = module.attend.output(each @ value)
    projections = module.attend.project_context(context)
    torch.testing.assert_close(module.attend(projected, projections, everywhere(x)), by_hand)
    torch.testing.assert_close(each.mean(dim=1), shares)


def test_equal_keys_share_alike():
    module = build_pooling("multi_layer", SHAPE, PoolingOptions(latents=2))
    torch.nn.init.zeros_(module.attend.key.weight)
    x = states()
    torch.testing.assert_close(module.shares(x, everywhere(x)), torch.full((2, 3), 1 / 3))


def test_matched_layers_give_last_layer_as_many_parameters_as_multi_layer():
    """multi_layer has L x D layer weights more; L = 3 more latents of width D weigh the same."""

    def count(name, **options):
        module = build_pooling(name, SHAPE, PoolingOptions(latents=5, **options))
        return sum(p.numel() for p in module.parameters())

    assert count("multi_layer") - count("last_layer") == 3 * WIDTH
    assert count("last_layer", match_layers=True) == count("multi_layer")


@pytest.mark.parametrize(
    ("pooling", "options", "message"),
    [
        ("mean", {"latents": 3}, "has no option latents"),
        ("layer_mean", {"init": "random"}, "It accepts: layers"),
        ("layer_weights", {"latents": 3}, "It accepts: layers, init, seed"),
        ("multi_layer", {"match_layers": True}, "has no option match_layers"),
        ("last_layer", {"layers": (1,)}, "has no option layers"),
        ("latent_attention", {"reads": "eos"}, "has no option reads"),
    ],
)
def test_an_option_that_the_pooling_does_not_use_is_refused(pooling, options, message):
    with pytest.raises(UsageError, match=message):
        build_pooling(pooling, SHAPE, PoolingOptions(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 0}, "latents is 0"),
        ({"heads": -1}, "heads is -1"),
        ({"init": "zeros"}, "expected one of identity, random"),
        ({"reads": "all"}, "expected one of auto, eos, tokens"),
    ],
)
def test_an_impossible_option_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        PoolingOptions(**options)


LATENT = ["last_layer", "multi_layer", "latent_attention"]


def fresh(name, weights):
    """Return a pooling that has computed nothing yet, with these weights."""
    module = build_pooling(name, SHAPE, PoolingOptions(latents=4, head_width=4, init="random"))
    module.load_state_dict(weights)
    return module


@pytest.mark.parametrize("name", LATENT)
def test_what_follows_from_the_latents_is_computed_once(name, monkeypatch):
    """The latents are normed once, for three calls of any number of texts."""
    module = build_pooling(name, SHAPE, PoolingOptions(latents=4, head_width=4))
    of_latents = module.attend.context_norm if name == "latent_attention" else None
    norm = of_latents or module.attend.query_norm
    shapes = []
    norm.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(inputs[0].shape)))
    with torch.inference_mode():
        for rows in (1, 2, 1):
            x = states()[:rows]
            module(x, everywhere(x))
    assert shapes == [(1, 4, WIDTH)]


@pytest.mark.parametrize("name", LATENT)
@pytest.mark.parametrize("change", ["step", "load", "moved", "half and back"])
def test_changed_weights_count_at_once(name, change):
    module = build_pooling(name, SHAPE, PoolingOptions(latents=4, head_width=4, init="random"))
    x = states()
    with torch.no_grad():
        before = module(x, everywhere(x))
    if change == "step":
        optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
        module(x, everywhere(x)).square().sum().backward()
        optimiser.step()
    elif change == "load":
        module.load_state_dict({k: v + 0.5 for k, v in module.state_dict().items()})
    elif change == "moved":
        module.latents = torch.nn.Parameter(module.latents.detach() + 1)
    else:
        module.bfloat16().float()
    with torch.inference_mode():
        found = module(x, everywhere(x))
        expected = fresh(name, module.state_dict())(x, everywhere(x))
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)


@pytest.mark.parametrize("name", LATENT)
def test_gradients_reach_the_latents_after_an_inference(name):
    module = build_pooling(name, SHAPE, PoolingOptions(latents=4, head_width=4, init="random"))
    x = states()
    with torch.inference_mode():
        module(x, everywhere(x))
    module(x, everywhere(x)).square().sum().backward()
    assert module.latents.grad is not None
    assert module.latents.grad.any()


@pytest.mark.parametrize("name", LATENT)
def test_a_pooling_made_in_inference_mode_works(name):
    x = states()
    with torch.inference_mode():
        module = build_pooling(name, SHAPE, PoolingOptions(latents=4, head_width=4))
        found = [module(x, everywhere(x)) for _ in range(2)]
    assert torch.equal(*found)
