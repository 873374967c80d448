"""The encoder without torch gives the Embedder's vectors, or stands back."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from embedder import Embedder
from embedder.light import load_light_encoder
from embedder.light.decoder import Int8Linears, LowRank, Tensors
from embedder.models.manifest import read_manifest
from embedder.models.merge import merge_model
from embedder.models.saving import save_model
from embedder.pooling import PoolingOptions
from retrieval.errors import ModelError, UnknownNameError, UsageError

TEXTS = ["a", "the quick Brown FOX", "", "mills grind slowly, ponds fill slower " * 9, "Größe 漢字"]
LIGHT = [
    (pooling, attention)
    for pooling in ("mean", "eos", "weighted_mean")
    for attention in ("causal", "bidirectional")
]


@pytest.fixture
def saved(trained, tmp_path, monkeypatch, base_folder):
    """Save a trained model whose base passes for a built-in one; return its folder."""

    def save(pooling="mean", attention="causal", architecture="llama", **settings):
        embedder = trained(pooling, attention, base=base_folder[architecture], **settings)
        save_model(embedder, tmp_path / "model", record={})
        known = SimpleNamespace(gguf_sha256=embedder.backbone.identity)
        monkeypatch.setattr("embedder.light.encoder.BASES", {embedder.spec.base: known})
        monkeypatch.setattr("embedder.light.encoder.is_converted", lambda identity: True)
        monkeypatch.setattr(
            "embedder.light.encoder.converted_folder", lambda identity: base_folder[architecture]
        )
        return tmp_path / "model"

    return save


def assert_same(name):
    light, whole = load_light_encoder(str(name)), Embedder.load(str(name), device="cpu")
    assert light.fingerprint == whole.fingerprint
    assert light.fingerprint.model == whole.fingerprint.model
    assert light.dimension == whole.dimension
    for encode in ("encode_queries", "encode_documents"):
        found, expected = (getattr(model, encode)(TEXTS) for model in (light, whole))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("pooling", "attention"), LIGHT)
@pytest.mark.parametrize("whiten", [False, True])
def test_vectors_and_fingerprint_are_the_embedders(saved, pooling, attention, whiten):
    options = PoolingOptions(whiten=whiten)
    assert_same(saved(pooling, attention, pooling_options=options, query_prompt="query: "))


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3"])
@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_models_on_a_folder_and_whole_ones_are_the_embedders(
    trained, tmp_path, base_folder, architecture, is_whole, attention
):
    settings = {"lora": None} if is_whole else {}
    embedder = trained("mean", attention, base=base_folder[architecture], **settings)
    save_model(embedder, tmp_path / "model", record={})
    if is_whole:
        merge_model(tmp_path / "model", tmp_path / "whole")
    name = str(tmp_path / ("whole" if is_whole else "model"))
    if architecture == "mistral":  # its layers see 8 tokens
        assert load_light_encoder(name) is None
        name += ",max_tokens=8"
    assert_same(name)


def test_a_base_that_changed_is_left_to_the_embedder(trained, tmp_path, base_folder):
    shutil.copytree(base_folder["llama"], tmp_path / "base")
    embedder = trained("mean", "causal", base=tmp_path / "base")
    save_model(embedder, tmp_path / "model", record={})
    assert load_light_encoder(str(tmp_path / "model")) is not None
    shutil.copy(base_folder["qwen3"] / "model.safetensors", tmp_path / "base")
    assert load_light_encoder(str(tmp_path / "model")) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"dimension": 8},
        {"normalize": False},
        {"lowercase": True},
        {"base_layers": 2},
        {"max_tokens": 7},
        {"document_prompt": "text: {text} (end)"},
        {"lora": None, "pooling_options": PoolingOptions(whiten=True)},
    ],
)
def test_every_setting_means_the_same(saved, settings):
    assert_same(saved(**settings))


def test_options_in_the_name_mean_the_same(saved):
    assert_same(f"{saved(dimension=24)},max_tokens=9,dimension=5,query_prompt=q: ")


def test_weights_saved_in_bfloat16_are_read(saved, trained, tmp_path):
    saved()
    save_model(trained(), tmp_path / "half", record={}, weights_dtype="bfloat16")
    assert_same(tmp_path / "half")


@pytest.mark.parametrize(("pooling", "attention"), LIGHT)
@pytest.mark.parametrize("lora", [{}, {"lora": None}])
def test_int8_vectors_are_those_of_the_embedder(saved, pooling, attention, lora, monkeypatch):
    """Near to a rounding step; the float vectors are further away."""
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)
    name = str(saved(pooling, attention, pooling_options=PoolingOptions(whiten=True), **lora))
    light = load_light_encoder(name, is_int8=True)
    fast = Embedder.load(name, device="cpu", speed="fast")
    assert fast.is_int8
    assert light.fingerprint == fast.fingerprint != load_light_encoder(name).fingerprint
    found, expected = light.encode_documents(TEXTS), fast.encode_documents(TEXTS)
    apart = np.abs(load_light_encoder(name).encode_documents(TEXTS) - expected).max()
    assert np.abs(found - expected).max() < min(5e-3, apart / 2)


def test_int8_layers_worked_by_hand():
    """Rows 4, 2 and 1, 1 become 6, 2 and 2, 0 over the root of 2: 127, 42 and 127, 0 steps."""
    linears = Int8Linears(
        {"up.weight": np.array([[4, 2]], np.float32)}, LowRank({}, 1.0), head_width=2
    )
    found = linears(np.array([[1, 1], [0, 0]], np.float32), "up")
    expected = 127 * 127 * (6 / 127) * (2 / 127) / 2
    np.testing.assert_allclose(found, [[expected], [0]], rtol=1e-6)


def test_no_texts_give_no_vectors(saved):
    assert load_light_encoder(str(saved())).encode_queries([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("pooling", "architecture"),
    [("multi_layer", "llama"), ("prompt_eos", "llama"), ("mean", "gpt2"), ("mean", "gemma3")],
)
def test_other_poolings_and_architectures_are_left_to_the_embedder(saved, pooling, architecture):
    assert load_light_encoder(str(saved(pooling, architecture=architecture))) is None


def test_untrained_and_chat_models_are_left_to_the_embedder(saved, base_folder):
    folder = saved()
    assert load_light_encoder(f"{base_folder['llama']}:mean+causal") is None
    rewrite(folder / "millpond.json", lambda data: data["spec"].update(chat_template=True))
    assert load_light_encoder(str(folder)) is None


def rewrite(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_base_that_is_not_there_yet_or_another_one_is_left_to_the_embedder(saved, monkeypatch):
    folder = saved()
    monkeypatch.setattr("embedder.light.encoder.is_converted", lambda identity: False)
    assert load_light_encoder(str(folder)) is None
    monkeypatch.setattr("embedder.light.encoder.is_converted", lambda identity: True)
    assert load_light_encoder(str(folder)) is not None
    base = read_manifest(folder).spec.base
    monkeypatch.setattr(
        "embedder.light.encoder.BASES", {base: SimpleNamespace(gguf_sha256="other")}
    )
    assert load_light_encoder(str(folder)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "adapter/adapter_model.safetensors").write_bytes(b"damaged"),
        lambda folder: (folder / "adapter/adapter_model.safetensors").unlink(),
        lambda folder: (folder / "millpond.json").write_text("{"),
        lambda folder: rewrite(
            folder / "millpond.json", lambda data: data.update(format_version=2)
        ),
    ],
)
def test_a_damaged_folder_is_left_to_the_embedder_which_says_so(saved, change):
    folder = saved()
    change(folder)
    assert load_light_encoder(str(folder)) is None
    with pytest.raises(ModelError):
        Embedder.load(str(folder), device="cpu")


def test_an_adapter_that_is_more_than_plain_lora_is_left_to_the_embedder(saved, tmp_path):
    folder = saved()
    config = folder / "adapter/adapter_config.json"
    rewrite(config, lambda data: data.update(use_rslora=True))
    from embedder.models.bases import file_sha256

    sha256 = {"adapter/adapter_config.json": file_sha256(config)}
    rewrite(folder / "millpond.json", lambda data: data["files"].update(sha256))
    assert load_light_encoder(str(folder)) is None


def test_a_wrong_option_is_said_at_once(saved):
    folder = saved()
    with pytest.raises(UnknownNameError):
        load_light_encoder(f"{folder},pooling=mean")
    with pytest.raises(UsageError):
        load_light_encoder(f"{folder},max_tokens=many")


def test_texts_that_are_none_and_weights_that_are_no_numbers_are_refused(saved, base_folder):
    light = load_light_encoder(str(saved()))
    with pytest.raises(UsageError, match="one string"):
        light.encode_queries("a text")
    with pytest.raises(UsageError, match="surrogate"):
        light.encode_queries(["\ud800"])
    light._decoder = lambda ids: np.full((len(ids), 32), np.nan, dtype=np.float32)
    with pytest.raises(ModelError, match="gave NaN or infinity for text 0: 'a'"):
        light.encode_queries(["a"])


def test_torch_and_transformers_are_not_imported():
    code = (
        "import sys, embedder.light\n"
        "heavy = {'torch', 'transformers', 'peft', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_file_gives_what_safetensors_gives(tmp_path, dtype):
    tensors = {"a": torch.randn(3, 5).to(dtype), "b.weight": torch.randn(4).to(dtype)}
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = Tensors(tmp_path / "x.safetensors")
    assert sorted(found) == ["a", "b.weight"]
    assert len(found) == 2
    for name, tensor in tensors.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.float().numpy())


def test_a_file_cut_short_is_no_tensor_file(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(9)}, tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole[:20])
    with pytest.raises(ValueError, match="cut short"):
        Tensors(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ValueError):
        Tensors(tmp_path / "x.safetensors")["a"]
