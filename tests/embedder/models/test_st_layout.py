"""A folder is written with sentence-transformers' own modules where they give its vectors."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from embedder import Embedder
from embedder.models.merge import merge_model, soup_models
from embedder.models.saving import save_model
from embedder.models.whiten import whiten_model
from embedder.pooling import PoolingOptions
from tests.embedder import stand_ins

pytest.importorskip(
    "sentence_transformers", minversion="6.0", reason="sentence-transformers is optional"
)
from sentence_transformers import SentenceTransformer

TEXTS = [
    "a",
    "",
    "The Quick brown fox",
    "Un été <eos> 水车 <pad> <bos>",
    "mills grind slowly, ponds fill slower " * 4,
]
NATIVE = ("eos", "cls", "mean", "max", "weighted_mean")


@pytest.fixture
def whole(trained, tmp_path):
    """Save a model with all its weights; return its folder."""

    def save(*args, weights_dtype="float32", **settings):
        embedder = trained(*args, lora=None, **settings)
        embedder.backbone.requires_grad_(True)
        with torch.no_grad():
            for parameter in embedder.backbone.parameters():
                parameter.mul_(1.01)
        save_model(embedder, tmp_path / "model", record={}, weights_dtype=weights_dtype)
        return tmp_path / "model"

    return save


@pytest.fixture
def adapted(trained, tmp_path):
    """Save a model whose LoRA is in its folder and whose base is not; return its folder."""

    def save(*args, **settings):
        save_model(trained(*args, **settings), tmp_path / "model", record={})
        return tmp_path / "model"

    return save


def modules(folder):
    listed = json.loads((folder / "modules.json").read_text())
    return [module["type"].rpartition(".")[2] for module in listed]


def assert_same_without_us(folder, atol=1e-5):
    """Compare with what SentenceTransformer gives without ``trust_remote_code``."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    own = Embedder.load(str(folder), device="cpu")
    for theirs, ours in (
        (model.encode_query, own.encode_queries),
        (model.encode_document, own.encode_documents),
        (model.encode, own.encode_documents),
    ):
        expected = ours(TEXTS)
        np.testing.assert_allclose(theirs(TEXTS), expected, atol=atol)
        np.testing.assert_allclose(theirs(TEXTS, batch_size=1), expected, atol=atol)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("pooling", NATIVE)
@pytest.mark.parametrize("kind", ["whole", "adapted"])
def test_sentence_transformers_alone_gives_our_vectors(request, kind, pooling, attention):
    save = request.getfixturevalue(kind)
    folder = save(pooling, attention, query_prompt="query: ", max_tokens=48)
    assert modules(folder) == ["Transformer", "Pooling", "Normalize"]
    assert_same_without_us(folder)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("qwen3", {"base_layers": 2}),
        ("mistral", {"dimension": 8}),
        ("gemma3", {"pooling_options": PoolingOptions(whiten=True)}),
        ("gemma3", {"base_layers": 3, "lowercase": True}),
    ],
)
def test_an_adapter_says_its_attention_and_depth(adapted, base_folder, architecture, settings):
    folder = adapted("mean", "bidirectional", base=base_folder[architecture], **settings)
    assert "MillpondModule" not in modules(folder)
    assert_same_without_us(folder)


def test_a_soup_of_adapters_is_read_without_us_too(adapted, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        adapted("mean", "bidirectional", seed=seed).rename(tmp_path / name)
    soup_models([tmp_path / "a", tmp_path / "b"], tmp_path / "soup")
    assert_same_without_us(tmp_path / "soup")


def test_an_adapter_on_what_transformers_does_not_find_keeps_our_module(adapted, tmp_path):
    first = adapted("mean").rename(tmp_path / "first")
    assert modules(adapted("mean", base=first / "adapter")) == ["MillpondModule"]
    shutil.rmtree(tmp_path / "model")
    stand_ins.write_gguf(tmp_path / "tiny.gguf")
    folder = adapted("mean", base=tmp_path / "tiny.gguf")
    assert modules(folder) == ["MillpondModule"]
    assert "(a base in a GGUF file)" in (folder / "README.md").read_text()


@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "gemma3"])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_bos_padding_and_windows_are_those_of_the_base(whole, base_folder, architecture, attention):
    assert_same_without_us(whole("mean", attention, base=base_folder[architecture]))


def test_a_base_without_bidirectional_attention_and_with_other_positions(whole, base_folder):
    assert_same_without_us(whole("weighted_mean", base=base_folder["gpt2"], max_tokens=40))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dimension": 8}, ["Dense", "Normalize"]),
        ({"normalize": False}, []),
        ({"ending": "none", "base": "gemma3"}, ["Normalize"]),
        ({"ending": "<bos>"}, ["Normalize"]),
        ({"lowercase": True, "query_prompt": "find: "}, ["Normalize"]),
        ({"base_layers": 2}, ["Normalize"]),
        ({"pooling_options": PoolingOptions(whiten=True)}, ["Normalize", "Dense", "Normalize"]),
        (
            {"pooling_options": PoolingOptions(whiten=True), "dimension": 8, "normalize": False},
            ["Normalize", "Dense"],
        ),
    ],
)
def test_what_the_spec_asks_for_becomes_a_module(whole, base_folder, settings, expected):
    if "base" in settings:
        settings = {**settings, "base": base_folder[settings["base"]]}
    folder = whole("mean", "causal", **settings)
    assert modules(folder) == ["Transformer", "Pooling", *expected]
    assert_same_without_us(folder)


def test_bfloat16_weights_are_read_as_such(whole):
    """Both load the same rounded weights; sentence-transformers computes in float32 if asked."""
    folder = whole(pooling_options=PoolingOptions(whiten=True), weights_dtype="bfloat16")
    model = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}
    )
    own = Embedder.load_folder(folder, device="cpu", dtype=torch.float32)
    np.testing.assert_allclose(model.encode_document(TEXTS), own.encode_documents(TEXTS), atol=1e-5)


def test_a_merged_and_a_whitened_model_need_nothing_of_ours(trained, tmp_path):
    save_model(trained("eos", "bidirectional"), tmp_path / "model", record={})
    merge_model(tmp_path / "model", tmp_path / "merged")
    assert_same_without_us(tmp_path / "merged")
    texts = [f"text {number} of the mill" for number in range(40)]
    whiten_model(str(tmp_path / "merged"), texts, [], tmp_path / "white", device="cpu")
    assert modules(tmp_path / "white")[2:] == ["Normalize", "Dense", "Normalize"]
    assert_same_without_us(tmp_path / "white")


@pytest.mark.parametrize(
    ("pooling", "settings", "reason"),
    [
        ("multi_layer", {}, "the pooling multi_layer"),
        ("prompt_eos", {}, "the pooling prompt_eos"),
        ("mean", {"query_prompt": 'Q: "{text}"'}, "a prompt that goes on after the text"),
        (
            "mean",
            {"lowercase": True, "query_prompt": "Q: "},
            "lower case for texts and not for prompts",
        ),
    ],
)
def test_what_sentence_transformers_cannot_say_keeps_our_module(whole, pooling, settings, reason):
    folder = whole(pooling, **settings)
    assert modules(folder) == ["MillpondModule"]
    assert f"do not give these vectors ({reason})" in (folder / "README.md").read_text()


def test_millpond_is_not_imported(whole, monkeypatch):
    """The folder is read where embedder cannot be imported."""
    folder = whole("eos", "bidirectional")
    for name in [name for name in sys.modules if name.partition(".")[0] == "embedder"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert SentenceTransformer(str(folder), device="cpu").encode("a").shape == (32,)
    card = (folder / "README.md").read_text()
    assert "With sentence-transformers alone" in card
    assert "trust_remote_code" not in card
