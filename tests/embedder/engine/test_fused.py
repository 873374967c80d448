"""Fused layers against lean ones and the base's own, in float32 and int8."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, LlamaConfig

from embedder import Embedder, VariantSpec, list_variants
from embedder.engine.fused import FusedLayer, fused_layers
from embedder.engine.fused_int8 import fused_int8_layers
from embedder.engine.int8 import quantize_linears
from embedder.engine.lean import LeanLayer
from embedder.engine.packing import GROUPS, PackedBatch, packed_attention
from embedder.engine.probe import Packing, layers_agree, packed_states
from embedder.engine.speed import unfuse

CPU = torch.device("cpu")
TEXTS = ["a", "the mill by the pond", "", "mills grind slowly, ponds fill slower " * 2, "pond"]
pytestmark = pytest.mark.usefixtures("functions")

VARIANTS = [(variant.pooling, variant.attention) for variant in list_variants()]


def load(folder, pooling="mean", attention="causal", **how):
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=48)
    return Embedder.from_spec(spec, device="cpu", **how)


def unfused(embedder):
    assert embedder.backbone.is_fused
    unfuse(embedder.backbone)
    assert not embedder.backbone.is_fused
    return embedder


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


def quantized(model):
    """Make a model's layers int8 as ``quantize_backbone`` does, and return them lean."""
    lean = [LeanLayer(block) for block in model.layers]
    quantize_linears(model.layers, dict(layer.rotate_values() for layer in lean))
    for layer in lean:
        layer.join_int8()
    return lean


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
@pytest.mark.parametrize("is_int8", [True, False])
def test_each_layer_is_the_lean_one(settings, is_causal, is_int8):
    model = tiny(**settings)
    model.config.is_causal = is_causal
    lean = quantized(model) if is_int8 else [LeanLayer(block) for block in model.layers]
    fused = fused_int8_layers(lean) if is_int8 else fused_layers(lean)
    assert [layer.block for layer in fused] == list(model.layers)
    assert layers_agree(model, is_causal, lean, fused, 0.02 if is_int8 else 1e-4)
    batch = PackedBatch.of([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17], [18]], CPU)
    with torch.inference_mode():
        found, expected = (
            packed_states(model, batch, is_causal, GROUPS, layers)[0] for layers in (fused, lean)
        )
    if is_int8:
        assert torch.cosine_similarity(found, expected).min() > 0.999
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_computes_something_else_is_noticed():
    model = tiny()
    lean = quantized(model)
    fused = fused_int8_layers(lean)
    for layer, change in ((fused[1], 1.05), (fused[0], float("nan"))):
        right = layer.compute
        layer.compute = lambda *given, r=right, c=change: given[0] + (r(*given) - given[0]) * c
        assert not layers_agree(model, True, lean, fused, 0.02)
        layer.compute = right
    assert layers_agree(model, True, lean, fused, 0.02)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_every_variant_has_the_vectors_of_the_bases_own_layers(
    base_folder, architecture, pooling, attention
):
    embedder = load(base_folder[architecture], pooling, attention)
    assert embedder.backbone.is_fused
    assert list(embedder.backbone.packed_layers()) == []  # none to compile
    found = embedder.encode_documents(TEXTS)
    packing = embedder.backbone.packing
    embedder.backbone.packing = Packing(packing.longest, packing.kernel)
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-6)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_every_variant_in_int8_has_the_vectors_of_lean_layers(
    base_folder, fast, architecture, pooling, attention
):
    embedder = fast(base_folder[architecture], pooling, attention)
    assert embedder.is_int8 and embedder.backbone.is_fused
    assert embedder.compiler is None
    found = embedder.encode_documents(TEXTS)
    np.testing.assert_allclose(found, unfused(embedder).encode_documents(TEXTS), atol=2e-2)


def test_long_texts_are_left_to_torchs_attention(base_folder, fast, monkeypatch):
    embedder = fast(base_folder["llama"])
    short = embedder.encode_documents(TEXTS)
    calls = []

    def count(*given, **named):
        calls.append(1)
        return packed_attention(*given, **named)

    monkeypatch.setattr("embedder.engine.fused.packed_attention", count)
    embedder.encode_documents(TEXTS)
    before = len(calls)
    monkeypatch.setattr("embedder.engine.fused._LONGEST_ATTENDED", 3)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), short, atol=5e-3)
    assert len(calls) == before + 4  # one a layer


def test_a_text_has_one_vector_in_every_batch(base_folder, fast):
    embedder = fast(base_folder["llama"])
    together = embedder.encode_documents(TEXTS)
    alone = np.concatenate([embedder.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_another_activation_is_left_to_lean_layers(base_folder, fast):
    lean = quantized(tiny(hidden_act="gelu"))
    assert fused_int8_layers(lean) == fused_layers(lean) == ()
    assert fused_int8_layers([LeanLayer(block) for block in tiny().layers]) == ()  # not int8
    assert fused_int8_layers([]) == fused_layers([]) == ()
    gemma = fast(base_folder["gemma3"])
    assert gemma.is_int8 and not gemma.backbone.is_fused
    assert gemma.compiler is not None


def test_fused_layers_that_differ_are_not_used(base_folder, fast, monkeypatch):
    """In float32 by more than 1e-4 of what a layer changes, and in int8."""

    class Other(FusedLayer):
        def compute(self, states, cos_sin):
            return states + (super().compute(states, cos_sin) - states) * 1.001

    with monkeypatch.context() as changed:
        changed.setattr("embedder.engine.fused.FusedLayer", Other)
        layers = load(base_folder["llama"]).backbone.packing.layers
        assert {type(layer) for layer in layers} == {LeanLayer}
    monkeypatch.setattr("embedder.engine.speed.layers_agree", lambda *given: False)
    notes = []
    embedder = fast(base_folder["llama"], notify=notes.append)
    assert not embedder.backbone.is_fused
    assert notes == ["speed fast: fused layers differ from the base's own and are not used."]


def test_an_adapter_that_is_added_later_counts(base_folder, adapt):
    """And with gradients the base's own layers run."""
    embedder = load(base_folder["llama"])
    before = embedder.encode_documents(TEXTS)
    adapt(embedder)
    assert embedder.backbone.is_fused
    found = embedder.encode_documents(TEXTS)
    assert np.abs(found - before).max() > 1e-2
    batch = PackedBatch.of([[5, 6, 7, 8], [9, 10]], CPU)
    graphed = embedder.backbone.packed_states(batch)
    assert graphed.requires_grad
    with torch.inference_mode():
        plain = embedder.backbone.packed_states(batch)
    torch.testing.assert_close(graphed.detach(), plain, atol=1e-5, rtol=1e-4)
    embedder.packs = False
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-5)


def test_under_autocast_the_blocks_own_layers_run(base_folder, fast):
    """Rounded from bfloat16, the largest input of a row would become 128, which int8 lacks."""
    embedder = fast(base_folder["llama"])
    before = embedder.encode_documents(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = embedder.encode_documents(TEXTS)
    assert (found * before).sum(axis=1).min() > 0.99
