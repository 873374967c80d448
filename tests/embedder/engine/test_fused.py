"""Fused int8 layers against the blocks they stand for."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, LlamaConfig

from embedder import Embedder, VariantSpec
from embedder.engine import speed
from embedder.engine.backbone import Backbone
from embedder.engine.batches import pad_batch
from embedder.engine.fused import FusedLayer, can_be_fused
from embedder.engine.int8 import Int8Linear, join_linears
from embedder.engine.packing import PackedBatch, packed_attention
from embedder.engine.speed import quantize_backbone
from embedder.variants import ATTENTIONS
from tests.embedder.conftest import every_variant

CPU = torch.device("cpu")
ROWS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17], [18]]
TEXTS = ["a", "the mill by the pond", "", "mills grind slowly, ponds fill slower " * 2, "pond"]
pytestmark = pytest.mark.usefixtures("functions")


def load(folder, pooling="mean", attention="causal", **how):
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=48)
    return Embedder.from_spec(spec, device="cpu", **how)


def tiny(**settings):
    """Return a random Llama whose norms and biases are random too."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 50,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    model = AutoModel.from_config(LlamaConfig(**{**shape, **settings})).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" in name or "bias" in name:
                weights.uniform_(0.5, 1.5)
    return model


def quantized(is_causal=True, **settings):
    """Return a tiny backbone with int8 layers, fused where that can be, and what was said."""
    attention = ATTENTIONS["causal" if is_causal else "bidirectional"]
    model, notes = tiny(**settings), []
    model.config.is_causal = is_causal
    backbone = Backbone(model, None, attention, "id", "tiny")
    quantize_backbone(backbone, notes.append)
    return backbone, notes


def kinds(backbone):
    return {type(block) for block in backbone.blocks()}


def unfuse(backbone):
    blocks = backbone.blocks()
    for place, layer in enumerate(list(blocks)):
        blocks[place] = layer.block


@pytest.fixture(autouse=True)
def wide_weights(monkeypatch):
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_size": 192, "intermediate_size": 128, "head_dim": 64, "rms_norm_eps": 0.1},
        {"num_key_value_heads": 3},
        {"head_dim": 16},
        {"head_dim": 16, "num_key_value_heads": 3},
    ],
)
@pytest.mark.parametrize("is_causal", [True, False])
def test_fused_layers_are_their_blocks(settings, is_causal):
    backbone, notes = quantized(is_causal, **settings)
    assert (kinds(backbone), notes) == ({FusedLayer}, [])
    batch = PackedBatch.of([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17], [18]], CPU)
    with torch.inference_mode():
        found = backbone.packed_states(batch)
        unfuse(backbone)
        expected = backbone.packed_states(batch)
    assert torch.cosine_similarity(found, expected).min() > 0.999
    assert not torch.equal(found, expected)


def test_a_layer_that_computes_something_else_is_noticed(monkeypatch):
    right = FusedLayer.compute
    for change in (1.05, float("nan")):
        monkeypatch.setattr(
            FusedLayer,
            "compute",
            lambda self, states, cos_sin, c=change: (
                states + (right(self, states, cos_sin) - states) * c
            ),
        )
        backbone, notes = quantized()
        assert FusedLayer not in kinds(backbone)
        assert notes == ["speed fast: fused layers differ from the base's own and are not used."]
    monkeypatch.setattr(FusedLayer, "compute", right)
    assert kinds(quantized()[0]) == {FusedLayer}


def test_a_failure_of_the_functions_leaves_the_blocks(monkeypatch):
    def fail(self, states, cos_sin):
        raise RuntimeError("a shape they were not made for")

    monkeypatch.setattr(FusedLayer, "compute", fail)
    assert FusedLayer not in kinds(quantized()[0])


@pytest.mark.parametrize(
    ("pooling", "attention", "architecture"),
    every_variant("llama", "qwen3", "mistral"),
)
def test_every_variant_has_the_vectors_of_its_blocks(base_folder, architecture, pooling, attention):
    embedder = load(base_folder[architecture], pooling, attention, speed="fast")
    assert (embedder.is_int8, kinds(embedder.backbone)) == (True, {FusedLayer})
    found = embedder.encode_documents(TEXTS)
    unfuse(embedder.backbone)
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=2e-2)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3"])
def test_packed_is_padded(base_folder, architecture):
    """Joined products and rotated values give what each layer gives alone, to a rounding step."""
    fast = load(base_folder[architecture], speed="fast")
    found = fast.encode_documents(TEXTS)
    fast.packs = False
    np.testing.assert_allclose(found, fast.encode_documents(TEXTS), atol=5e-3)


def test_long_texts_are_left_to_torchs_attention(monkeypatch):
    backbone, _ = quantized(head_dim=16)
    batch = PackedBatch.of(ROWS, CPU)
    calls = []

    def count(*given, **named):
        calls.append(1)
        return packed_attention(*given, **named)

    monkeypatch.setattr("embedder.engine.fused.packed_attention", count)
    with torch.inference_mode():
        short = backbone.packed_states(batch)
        assert calls == []
        monkeypatch.setattr("embedder.engine.fused._LONGEST_ATTENDED", 3)
        found = backbone.packed_states(batch)
    assert len(calls) == 2  # one a layer
    assert torch.cosine_similarity(found, short).min() > 0.999


def test_a_text_has_one_vector_in_every_batch(base_folder):
    embedder = load(base_folder["llama"], speed="fast")
    together = embedder.encode_documents(TEXTS)
    alone = np.concatenate([embedder.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_other_layers_are_int8_and_not_fused(base_folder):
    backbone, notes = quantized(hidden_act="gelu")
    assert (FusedLayer in kinds(backbone), notes) == (False, [])
    assert any(isinstance(module, Int8Linear) for module in backbone.modules())
    gemma = load(base_folder["gemma3"], speed="fast")
    assert gemma.is_int8
    assert FusedLayer not in kinds(gemma.backbone)


def further_part(block):
    block.self_attn.gate = nn.Identity()


def other_norm(block):
    block.input_layernorm = nn.LayerNorm(24)


def one_bias(block):
    block.mlp.up_proj = nn.Linear(24, 40)


@pytest.mark.parametrize("change", [further_part, other_norm, one_bias])
def test_a_block_with_other_parts_is_not_fused(change):
    block = tiny().layers[0]
    assert can_be_fused(block)
    change(block)
    assert not can_be_fused(block)


def test_under_autocast_the_block_computes(base_folder):
    """Rounded from bfloat16, the largest input of a row would become 128, which int8 lacks."""
    embedder = load(base_folder["llama"], speed="fast")
    before = embedder.encode_documents(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = embedder.encode_documents(TEXTS)
    assert (found * before).sum(axis=1).min() > 0.99


def test_layers_of_one_input_are_one_product(base_folder, monkeypatch):
    """4 products a layer instead of 7, from weights that are in memory once."""
    fast = load(base_folder["llama"], speed="fast")
    for layer in fast.backbone.blocks():
        attention, feed = layer.block.self_attn, layer.block.mlp
        for joined, first, second in (
            (layer.into_heads, attention.q_proj, attention.k_proj),
            (layer.into_gates, feed.gate_proj, feed.up_proj),
        ):
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
    torch.testing.assert_close(join_linears(parts)(inputs), torch.cat(alone, dim=1))
    torch.testing.assert_close(parts[1](inputs), alone[1])


def test_rotated_values_change_nothing_in_float32(base_folder):
    """``o_proj`` is told of the blocks; rotated back by them, its inputs are the old ones."""
    backbone = load(base_folder["qwen3"]).backbone
    ids, mask = pad_batch(ROWS, 0)
    before = backbone.token_states(ids, mask)
    for block in backbone.blocks():
        linear, size = speed._rotate_values(block)
        assert (linear, size) == (block.self_attn.o_proj, 8)
        rotation = torch.tensor([[1.0]])
        while len(rotation) < size:
            rotation = (
                torch.cat([torch.cat([rotation, rotation], 1), torch.cat([rotation, -rotation], 1)])
                / 2**0.5
            )
        with torch.no_grad():
            linear.weight.copy_((linear.weight.view(-1, size) @ rotation).view(linear.weight.shape))
    torch.testing.assert_close(backbone.token_states(ids, mask), before, atol=1e-5, rtol=1e-5)
