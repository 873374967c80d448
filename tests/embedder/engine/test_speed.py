"""``fast``: int8 layers, and what happens where they cannot be had."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

from embedder import Embedder, VariantSpec
from embedder.engine.backbone import Backbone
from embedder.engine.fused import PanelProduct, load_functions
from embedder.engine.int8 import Int8Linear
from embedder.engine.speed import quantize_backbone
from embedder.models.lora import LoraOptions, add_adapter
from embedder.models.saving import save_model
from embedder.variants import ATTENTIONS
from retrieval.errors import UsageError
from tests.embedder.stand_ins import set_int8

TEXTS = ["pond", "the mill by the pond turns", "mills grind slowly", "", "a b c d e f g"]
VNNI = "embedder.engine.speed.cpu_has_vnni"


def load(folder, notes, speed="fast", **settings):
    spec = VariantSpec(base=str(folder), pooling="mean", attention="causal", max_tokens=48)
    return Embedder.from_spec(spec, device="cpu", speed=speed, notify=notes.append, **settings)


@pytest.fixture
def llama(base_folder):
    return base_folder["llama"]


def test_an_int8_layer_worked_by_hand():
    """Three inputs are an odd number, so none is rotated.

    Weights 127, -2 and 0 are 1 a step; inputs 2, 0.75 and 0 are 2/127 a step: 127, 47.6, so 48,
    and 0.
    The sum of products is 127 * 127 - 48 * 2 = 16033, times 2/127 and plus 5.
    """
    linear = nn.Linear(3, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[127.0, -2.0, 0.0]]))
        linear.bias.fill_(5.0)
    layer = Int8Linear.of(linear)
    assert layer.weight.tolist() == [[127, -2, 0]]
    found = layer(torch.tensor([[[2.0, 0.75, 0.0]]]))
    assert found.shape == (1, 1, 1)
    assert found.item() == pytest.approx(16033 * 2 / 127 + 5)


def test_inputs_and_weights_are_rotated_worked_by_hand():
    """Weights 4 and 2 become 6 and 2, over the root of 2; inputs 1 and 1 into 2 and 0.

    In steps of 6/127 and 2/127 over that root: 127 and 42.3, so 42; 127 and 0.
    """
    linear = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[4.0, 2.0]]))
    layer = Int8Linear.of(linear)
    assert layer.weight.tolist() == [[127, 42]]
    found = layer(torch.tensor([[1.0, 1.0]]))
    assert found.item() == pytest.approx(127 * 127 * (6 / 127) * (2 / 127) / 2)


@pytest.mark.parametrize("width", [32, 48, 64, 80, 192])
def test_an_int8_layer_is_near_its_float_layer_and_takes_zeros(width):
    torch.manual_seed(0)
    linear = nn.Linear(width, 96, bias=False)
    states = torch.randn(3, 7, width)
    expected, found = linear(states), Int8Linear.of(linear)(states)
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9999
    assert not Int8Linear.of(linear)(torch.zeros(1, width)).any()


def test_one_large_input_leaves_the_others_their_digits():
    """Rounded as they are, all inputs below 200 / 127 / 2 would be 0."""
    torch.manual_seed(0)
    linear = nn.Linear(128, 64, bias=False)
    states = torch.rand(50, 128) - 0.5
    states[:, 3] = 200.0
    with torch.no_grad():
        linear.weight[:, 3] = 0.0
        expected = linear(states)
    layer = Int8Linear.of(linear)
    found = torch.cosine_similarity(layer(states), expected, dim=1).min()
    unrotated = Int8Linear.of(linear)
    unrotated.rotation = torch.ones(1, 1)
    unrotated.weight = torch.round(linear.weight / unrotated.scale.T).to(torch.int8)
    lost = torch.cosine_similarity(unrotated(states), expected, dim=1).max()
    assert lost < 0.5 < 0.8 < found


def test_fast_without_int8_computes_the_exact_vectors_and_says_why(llama, monkeypatch):
    set_int8(monkeypatch, False)
    notes = []
    fast, exact = load(llama, notes), load(llama, [], "exact")
    assert np.array_equal(fast.encode_documents(TEXTS), exact.encode_documents(TEXTS))
    assert fast.fingerprint == exact.fingerprint
    assert [note for note in notes if "speed fast" in note] == [
        "speed fast: int8 needs AVX512-VNNI, or AVX2 and the C functions, and nothing was "
        "compiled; computing in float32."
    ]


@pytest.mark.usefixtures("each_library")
@pytest.mark.parametrize(("n", "depth", "outs"), [(1, 2, 16), (7, 48, 32), (200, 576, 192)])
def test_products_without_vnni_are_exact(n, depth, outs):
    """At the largest numbers too, where 8-bit instructions of AVX2 would overflow."""
    torch.manual_seed(0)
    rows, weight = (
        torch.randint(-127, 128, shape, dtype=torch.int8) for shape in ((n, depth), (outs, depth))
    )
    rows[0] = weight[0] = 127
    product = PanelProduct(load_functions())
    found = product(rows, product.pack(weight))
    assert found.tolist() == (rows.double() @ weight.double().T).tolist()
    assert found[0, 0] == 127 * 127 * depth


@pytest.mark.usefixtures("each_library")
def test_fast_without_vnni_is_fast_with_it_and_has_its_fingerprint(llama, monkeypatch):
    set_int8(monkeypatch, True)
    expected = load(llama, [])
    monkeypatch.setattr(VNNI, lambda: False)
    notes = []
    found = load(llama, notes)
    products = {type(m.product) for m in found.backbone.modules() if isinstance(m, Int8Linear)}
    assert products == {PanelProduct}
    assert not [note for note in notes if "speed fast" in note]
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_allclose(
        found.encode_documents(TEXTS), expected.encode_documents(TEXTS), atol=1e-6
    )


@pytest.mark.usefixtures("functions")
def test_layers_that_fill_no_panel_are_told(monkeypatch):
    monkeypatch.setattr(VNNI, lambda: False)
    notes = []
    model = LlamaModel(
        LlamaConfig(
            vocab_size=50,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=1,
            num_attention_heads=3,
        )
    )
    backbone = Backbone(model, None, ATTENTIONS["causal"], "id", "tiny")
    assert not quantize_backbone(backbone, notes.append)
    assert notes == [
        "speed fast: without AVX512-VNNI int8 layers have a multiple of 16 outputs, and these "
        "have not; computing in float32."
    ]


def test_fast_with_vnni_computes_near_vectors_under_another_fingerprint(llama, monkeypatch):
    monkeypatch.setattr(VNNI, lambda: True)
    notes = []
    fast, exact = load(llama, notes), load(llama, [], "exact")
    assert fast.is_int8
    assert not [note for note in notes if "speed fast" in note]
    found, expected = fast.encode_documents(TEXTS), exact.encode_documents(TEXTS)
    assert np.abs(found - expected).max() > 1e-5
    assert ((found * expected).sum(axis=1) > 0.98).all()
    assert fast.fingerprint.digest != exact.fingerprint.digest
    settings = dict(fast.fingerprint.settings)
    assert settings.pop("linear_layers") == "int8 turned"
    assert settings == dict(exact.fingerprint.settings)


def test_int8_is_the_same_alone_and_in_any_batch_to_the_rounding_of_a_step(llama, monkeypatch):
    monkeypatch.setattr(VNNI, lambda: True)
    fast = load(llama, [])
    alone = np.concatenate([fast.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(fast.encode_documents(TEXTS), alone, atol=2e-3)


def test_int8_is_not_for_half_precision_nor_under_lora(llama, monkeypatch):
    monkeypatch.setattr(VNNI, lambda: True)
    notes = []
    assert not load(llama, notes, dtype=torch.bfloat16).is_int8
    assert "int8 layers take float32" in notes[-1]
    exact = load(llama, [], "exact")
    add_adapter(exact.backbone, LoraOptions(rank=2, alpha=4))
    assert not Embedder(exact.spec, exact.backbone, speed="fast", notify=notes.append).is_int8
    assert "under LoRA" in notes[-1]


def test_a_base_is_made_int8_once_for_all_its_models(llama, monkeypatch):
    monkeypatch.setattr(VNNI, lambda: True)
    first = load(llama, [])
    expected = first.encode_documents(TEXTS)
    second = Embedder(first.spec, first.backbone, speed="fast")
    assert second.is_int8
    assert np.array_equal(second.encode_documents(TEXTS), expected)


def test_an_int8_model_is_not_saved(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(VNNI, lambda: True)
    with pytest.raises(UsageError, match="speed='exact'"):
        save_model(load(llama, []), tmp_path / "out", record={})
    assert not (tmp_path / "out").exists()


def test_an_unknown_speed_is_refused(llama):
    with pytest.raises(UsageError, match="speed is 'ludicrous'; expected exact or fast"):
        load(llama, [], "ludicrous")
