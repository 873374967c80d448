"""Layers and attention against values worked by hand, and the fact about a single key."""

import numpy as np
import pytest
import torch

from benchmarks.study.layers import (
    analyse_model,
    change_without_attention,
    correlate_layers,
    count_flops,
    idle_parameters,
    mean_layer_states,
)
from benchmarks.study.tasks import sample_texts
from embedder import Embedder, VariantSpec
from embedder.pooling import PoolingOptions, build_pooling
from embedder.pooling.registry import PoolingShape

OPTIONS = PoolingOptions(latents=3, head_width=4, init="random")
TEXTS = ["a mill grinds corn", "still water", "weir"]


def pooled(length):
    module = build_pooling("last_layer", PoolingShape(8, 4), OPTIONS)
    states = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(1))
    return module, states, torch.ones(2, length, dtype=torch.bool)


def test_over_a_single_key_no_query_and_no_key_changes_anything():
    assert change_without_attention(*pooled(1)) == 0.0


def test_over_several_keys_they_do():
    assert change_without_attention(*pooled(3)) > 0.01


def test_over_a_single_key_queries_and_keys_get_no_gradient():
    module, states, mask = pooled(1)
    module(states, mask).square().sum().backward()
    attend = module.attend
    for part in (attend.query.weight, attend.key.weight, attend.query_norm.weight):
        assert part.grad is None or part.grad.abs().max() < 1e-6
    assert attend.value.weight.grad.abs().max() > 1e-3


def test_redrawing_leaves_the_pooling_as_it_was():
    module, states, mask = pooled(3)
    before = module(states, mask)
    change_without_attention(module, states, mask)
    assert torch.equal(module(states, mask), before)


def test_the_idle_weights_are_those_of_query_and_key():
    module, _, _ = pooled(1)
    # Width 8 gives 8 // 4 = 2 heads of width 4: 8 x 8 each, and the queries' norm, 8 and 8.
    assert idle_parameters(module) == 8 * 8 + 8 * 8 + 8 + 8


def test_layers_are_correlated_by_rank_and_averaged_over_texts():
    """Text 1: layer 2 has layer 1's order (1), layer 3 the opposite (-1). Text 2: 1 and 1."""
    states = np.array(
        [
            [[1.0, 2.0, 3.0], [1.0, 5.0, 900.0], [3.0, 2.0, 1.0]],
            [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]],
        ]
    )
    found = correlate_layers(states)
    np.testing.assert_allclose(found, [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-12)


def test_the_sample_is_the_same_for_every_model_and_holds_each_text_once():
    texts = [*TEXTS, "still water", "  "]
    assert sorted(sample_texts(texts, 9)) == sorted(TEXTS)
    assert sample_texts(texts, 2) == sample_texts(texts, 2)
    assert len(sample_texts(texts, 2)) == 2


@pytest.fixture(scope="module")
def load(tiny_base):
    def build(pooling, attention, **options):
        spec = VariantSpec(
            base=str(tiny_base),
            pooling=pooling,
            attention=attention,
            max_tokens=24,
            pooling_options=PoolingOptions(**options),
        )
        return Embedder.from_spec(spec, device="cpu")

    return build


def test_the_last_layers_mean_state_is_what_mean_pooling_reads(load):
    embedder = load("mean", "causal")
    states = mean_layer_states(embedder, TEXTS)
    assert states.shape == (3, 4, 32)
    last = states[:, -1] / np.linalg.norm(states[:, -1], axis=1, keepdims=True)
    order = np.argsort([-len(row) for row in embedder.tokenize(TEXTS)], kind="stable")
    np.testing.assert_allclose(last, embedder.encode_documents(TEXTS)[order], atol=1e-5)


def test_the_arithmetic_of_a_text_is_the_bases_and_the_poolings(load):
    """Of one llama layer alone, 128 tokens x 2 x (weights of its seven matrices) are less."""
    weights = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48  # q, k and v, o, feed-forward
    plain = count_flops(load("mean", "bidirectional"))
    assert plain > 4 * 128 * 2 * weights
    more = count_flops(load("last_layer", "bidirectional", latents=4, head_width=8))
    # Keys and values of 128 tokens alone are two matrices of 32 x 32.
    assert more - plain > 128 * 2 * 2 * 32 * 32


def test_equal_keys_read_every_layer_alike(load):
    embedder = load("multi_layer", "bidirectional", latents=2, head_width=8, layers=(1, -1))
    torch.nn.init.zeros_(embedder.pooling.attend.key.weight)
    found = analyse_model(embedder, TEXTS)["reading"]
    assert found == {"layers": [1, 4], "shares": [0.5, 0.5]}


def test_last_layer_reads_one_key_under_causal_and_every_token_under_bidirectional(load):
    sizes = {"latents": 2, "head_width": 8, "init": "random"}
    causal = analyse_model(load("last_layer", "causal", **sizes), TEXTS)["attention"]
    both = analyse_model(load("last_layer", "bidirectional", **sizes), TEXTS)["attention"]
    assert (causal["keys"], causal["change"]) == (1, 0)
    # One token a byte and EOS: 18 + 1, 11 + 1 and 4 + 1 tokens.
    assert both["keys"] == 12.0
    assert both["change"] > 0.01
