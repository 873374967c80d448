"""Lean layers: what transformers' own layers compute, on the bases that have such layers."""

from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, LlamaConfig

from embedder import Embedder, VariantSpec, list_variants
from embedder.attention import get_attention
from embedder.engine.batches import pad_batch
from embedder.engine.int8 import Int8Linear, join_linears
from embedder.engine.lean import LeanLayer, lean_in_place
from embedder.engine.packing import GROUPS, PackedBatch
from embedder.engine.probe import Packing, choose_packing, packed_states

CPU = torch.device("cpu")
ROWS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17], [18]]
TEXTS = ["a", "the mill by the pond", "", "mills grind slowly, ponds fill slower " * 2, "pond"]
pytestmark = pytest.mark.usefixtures("unfused")  # test_engine_fused.py has the others

VARIANTS = [(variant.pooling, variant.attention) for variant in list_variants()]


def load(folder, pooling="mean", attention="causal", **how):
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=48)
    return Embedder.from_spec(spec, device="cpu", **how)


def tiny(**settings):
    """Return a random Llama whose norms and biases are random too."""
    torch.manual_seed(0)
    model = AutoModel.from_config(
        LlamaConfig(
            vocab_size=50,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=8,
            **settings,
        )
    ).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" in name or "bias" in name:
                weights.uniform_(0.5, 1.5)
    return model


@torch.no_grad()
def choose(model, is_causal=True):
    """Return how a model is packed, by the padded path as ``Backbone`` has it."""
    model.config.is_causal = is_causal

    def padded(ids, mask):
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return out.last_hidden_state

    return choose_packing(model, padded, is_causal, lambda: model.layers)


@torch.no_grad()
def states(model, layers=(), is_causal=True):
    return packed_states(model, PackedBatch.of(ROWS, CPU), is_causal, GROUPS, layers)[0]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("llama", 4), ("mistral", 4), ("qwen3", 4), ("gemma3", 0), ("gpt2", 0), ("gpt_neo", 0)],
)
def test_bases_with_the_parts_of_a_llama_have_lean_layers(base_folder, architecture, expected):
    backbone = load(base_folder[architecture]).backbone
    assert len(backbone.packing.layers) == expected
    assert list(backbone.packed_layers()) == list(backbone.packing.layers or backbone.blocks())


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_every_variant_has_the_vectors_of_the_bases_own_layers(
    base_folder, architecture, pooling, attention
):
    embedder = load(base_folder[architecture], pooling, attention)
    found = embedder.encode_documents(TEXTS)
    packing = embedder.backbone.packing
    assert packing.layers
    embedder.backbone.packing = Packing(packing.longest, packing.kernel)
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-6)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}]
)
def test_states_with_biases_and_other_activations(settings, is_causal):
    model = tiny(**settings)
    layers = choose(model, is_causal).layers
    assert len(layers) == 3
    torch.testing.assert_close(
        states(model, layers, is_causal), states(model, (), is_causal), atol=1e-5, rtol=1e-5
    )


def doubled_sum(block):
    """Let a block add its feed-forward part twice, as no Llama does."""
    real = block.forward

    def forward(self, hidden_states, *given, **named):
        return 2 * real(hidden_states, *given, **named) - hidden_states

    block.forward = MethodType(forward, block)


def other_norm(block):
    """Let a block norm its states as Gemma does: times 1 more than the weights."""
    norm = block.input_layernorm
    norm.forward = MethodType(lambda self, x: type(self).forward(self, x) * 1.5, norm)


def further_part(block):
    """Give a block a part of which nothing is known."""
    block.self_attn.gate = nn.Identity()


@pytest.mark.parametrize("change", [doubled_sum, other_norm, further_part])
def test_a_layer_that_computes_something_else_is_left_as_it_is(change):
    model = tiny()
    change(model.layers[1])
    packing = choose(model)
    assert packing == Packing(choose(tiny()).longest, GROUPS)
    assert packing.layers == ()


def test_half_precision_keeps_its_own_layers():
    assert choose(tiny().bfloat16(), True).layers == ()


def test_the_blocks_get_their_own_forward_back():
    """Also one that training had put there, and when the pass fails."""
    model = tiny()
    layers = choose(model).layers
    wrapped = partial(type(model.layers[0]).forward, model.layers[0])
    model.layers[0].forward = wrapped
    with pytest.raises(ZeroDivisionError), lean_in_place(layers):
        assert model.layers[0].forward == layers[0].forward
        raise ZeroDivisionError
    assert model.layers[0].forward is wrapped
    assert "forward" not in vars(model.layers[1])


def test_under_autocast_a_layer_computes_as_the_base_does():
    """Sums must stay in float32 there, which a product that adds would not do."""
    model = tiny()
    layers = choose(model).layers
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = states(model, layers), states(model)
    assert torch.equal(found, expected)


def test_gradients_flow_through_the_bases_own_layers(base_folder):
    backbone = load(base_folder["llama"]).backbone
    batch = PackedBatch.of(ROWS, CPU)
    found = backbone.packed_states(batch)
    found.square().sum().backward()
    assert all(weights.grad is not None for weights in backbone.blocks().parameters())
    with torch.no_grad():
        torch.testing.assert_close(backbone.packed_states(batch), found, atol=1e-5, rtol=1e-5)


def test_an_adapter_that_is_added_later_counts(base_folder, adapt):
    embedder = load(base_folder["llama"])
    before = embedder.encode_documents(TEXTS)
    adapt(embedder)
    assert embedder.backbone.packing.layers
    found = embedder.encode_documents(TEXTS)
    assert np.abs(found - before).max() > 1e-2
    embedder.packs = False
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3"])
def test_int8_packed_is_int8_padded(base_folder, architecture, monkeypatch):
    """Joined products and rotated values give what each layer gives alone, to a rounding step."""
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)
    fast = load(base_folder[architecture], speed="fast")
    assert fast.is_int8
    found = fast.encode_documents(TEXTS)
    fast.packs = False
    np.testing.assert_allclose(found, fast.encode_documents(TEXTS), atol=5e-3)


def test_layers_of_one_input_are_one_product(base_folder, monkeypatch):
    """4 products a layer instead of 7, from weights that are in memory once."""
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)
    fast = load(base_folder["llama"], speed="fast")
    for layer in fast.backbone.packing.layers:
        attention, feed = layer.block.self_attn, layer.block.mlp
        for first, second in ((attention.q_proj, attention.k_proj), (feed.gate_proj, feed.up_proj)):
            joined = first.joined
            assert joined.weight.data_ptr() == first.weight.data_ptr()
            assert second.weight.data_ptr() == first.weight.data_ptr() + first.weight.numel()
    products = []
    multiply = torch._int_mm

    def count(rows, weights):
        products.append(tuple(weights.shape))
        return multiply(rows, weights)

    monkeypatch.setattr(torch, "_int_mm", count)
    fast.encode_documents(["pond"])
    assert products == [(32, 64), (32, 32), (32, 96), (48, 32)] * 4


def test_joined_layers_keep_their_biases():
    torch.manual_seed(0)
    linears = [nn.Linear(16, size) for size in (4, 6)]
    parts = [Int8Linear.of(linear) for linear in linears]
    inputs = torch.randn(5, 16)
    alone = [part(inputs) for part in parts]
    join_linears(parts)
    assert parts[0].joined is not None
    torch.testing.assert_close(parts[0].joined(inputs), torch.cat(alone, dim=1))
    torch.testing.assert_close(parts[1](inputs), alone[1])


def test_layers_are_not_joined_where_one_alone_has_a_bias():
    parts = [Int8Linear.of(nn.Linear(16, 4, bias=bias)) for bias in (True, False)]
    join_linears(parts)
    assert parts[0].joined is None


def test_rotated_values_change_nothing_in_float32(base_folder):
    """``o_proj`` is told of the blocks; rotated back by them, its inputs are the old ones."""
    backbone = load(base_folder["qwen3"]).backbone
    ids, mask = pad_batch(ROWS, 0)
    before = backbone.token_states(ids, mask)
    for layer in backbone.packing.layers:
        linear, block = layer.rotate_values()
        assert (linear, block) == (layer.block.self_attn.o_proj, 8)
        rotation = torch.tensor([[1.0]])
        while len(rotation) < block:
            rotation = (
                torch.cat([torch.cat([rotation, rotation], 1), torch.cat([rotation, -rotation], 1)])
                / 2**0.5
            )
        with torch.no_grad():
            linear.weight.copy_(
                (linear.weight.view(-1, block) @ rotation).view(linear.weight.shape)
            )
    torch.testing.assert_close(backbone.token_states(ids, mask), before, atol=1e-5, rtol=1e-5)


def test_a_lean_layer_without_rotations_leaves_it_to_its_block():
    """Bases that call their layers in another way than Llama are computed as they are."""
    calls = []

    class Block(nn.Module):
        def forward(self, hidden_states, *given, **named):
            calls.append(named)
            return hidden_states + 1

    found = LeanLayer(Block()).forward(torch.zeros(1, 2, 3), use_cache=False)
    assert found.tolist() == [[[1.0] * 3] * 2]
    assert calls == [{"use_cache": False, "position_embeddings": None}]


def test_the_attention_probe_sees_through_lean_layers(base_folder):
    """A later token changes the first one's state without a causal mask, and only then."""
    for attention in ("causal", "bidirectional"):
        backbone = load(base_folder["llama"], attention=attention).backbone
        assert backbone.packing.layers
        with torch.inference_mode():
            one, other = (
                backbone.packed_states(PackedBatch.of([[5, 6, last]], CPU))[0] for last in (7, 8)
            )
        assert torch.equal(one, other) == get_attention(attention).is_causal
