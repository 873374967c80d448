"""A peft folder named as a model: its base with the adapter folded in, as peft does it."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from benchmarks.lab.layouts.adapters import peft_model, write_adapter
from benchmarks.lab.layouts.decoders import write_json
from embedder import Embedder, load_encoder
from embedder.models.names import write_value
from embedder.models.saving import save_model
from embedder.models.sentence_transformers import needs_sentence_transformers
from retrieval.errors import ModelError, UsageError

TEXTS = ["a", "the quick brown fox", "mills grind slowly, ponds fill slower"]
WEIGHTS = "adapter_model.safetensors"


def peft_states(base, adapters, texts, *, is_causal=True, auto=AutoModel):
    """The last layer's states of each text with EOS, as peft computes them, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = peft_model(base, adapters, is_causal=is_causal, auto=auto)
    with torch.inference_mode():
        return [
            model(torch.tensor([tokenizer(text)["input_ids"] + [2]])).last_hidden_state[0]
            for text in texts
        ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": "all-linear"},
        {
            "target_modules": r".*\.(q|o)_proj",
            "rank_pattern": {"q_proj": 2},
        },
        {"modules_to_save": ["down_proj"], "target_modules": ["q_proj"]},
        {"task_type": "FEATURE_EXTRACTION", "bias": "lora_only"},
    ],
)
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_vectors_are_those_of_peft(base_folder, tmp_path, options, attention):
    base = base_folder["llama"]
    folder = write_adapter(tmp_path / "adapter", base, **options)
    states = peft_states(base, [folder], TEXTS, is_causal=attention == "causal")
    expected = F.normalize(torch.stack([state[-1] for state in states]), dim=-1)
    found = Embedder.load(f"{folder}:eos+{attention}", device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = Embedder.load(f"{base}:eos+{attention}", device="cpu").encode_documents(TEXTS)
    assert np.abs(found - plain).max() > 1e-3


def test_an_adapter_that_was_trained_under_a_head_fits_too(base_folder, tmp_path):
    """Its tensors are called base_model.model.model.layers...; its lm_head is not read."""
    base = base_folder["qwen3"]
    folder = write_adapter(
        tmp_path / "adapter",
        base,
        auto=AutoModelForCausalLM,
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "lm_head"],
    )
    assert any("lm_head" in name for name in load_file(folder / WEIGHTS))
    states = peft_states(base, [folder], TEXTS, auto=AutoModelForCausalLM)
    expected = F.normalize(torch.stack([state.mean(dim=0) for state in states]), dim=-1)
    found = Embedder.load(f"{folder}:mean+causal", device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_repllama_is_an_adapter_with_prefixes(base_folder, tmp_path):
    base = base_folder["llama"]
    folder = write_adapter(tmp_path / "adapter", base, task_type="FEATURE_EXTRACTION")
    name = f"{folder}:eos+causal,query_prompt=query: ,document_prompt=passage: "
    model = load_encoder(name, device="cpu")
    for encode, prompt in (
        (model.encode_queries, "query: "),
        (model.encode_documents, "passage: "),
    ):
        states = peft_states(base, [folder], [prompt + text for text in TEXTS])
        expected = F.normalize(torch.stack([state[-1] for state in states]), dim=-1)
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5)


@pytest.fixture
def llm2vec(base_folder, tmp_path):
    """base + mntp adapter + supervised adapter, as McGill-NLP publishes them."""
    base = base_folder["gemma3"]  # its tokenizer puts BOS
    mntp = write_adapter(tmp_path / "mntp", base, seed=1, target_modules="all-linear")
    shutil.copy(base / "config.json", mntp)
    config = json.loads((mntp / "config.json").read_text())
    auto_map = {"AutoModel": "modeling_llama_encoder.LlamaEncoderModel"}
    write_json(mntp / "config.json", {**config, "auto_map": auto_map})
    top = write_adapter(tmp_path / "supervised", base, seed=2, target_modules="all-linear")
    settings = json.loads((top / "adapter_config.json").read_text())
    write_json(top / "adapter_config.json", {**settings, "base_model_name_or_path": str(mntp)})
    write_json(
        top / "llm2vec_config.json",
        {"pooling_mode": "mean", "max_length": 96, "doc_max_length": 96, "skip_instruction": True},
    )
    return base, mntp, top


@pytest.mark.parametrize("prompt", ["", "Given a query, find what answers it: "])
def test_llm2vec_pools_the_text_alone_over_two_adapters(llm2vec, prompt):
    base, mntp, top = llm2vec
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [text for text in TEXTS if text]
    model = peft_model(base, [mntp, top], is_causal=False)
    expected = []
    for text in texts:
        ids = tokenizer(prompt + text)["input_ids"]
        own = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        with torch.inference_mode():
            states = model(torch.tensor([ids])).last_hidden_state[0]
        expected.append(F.normalize(states[-own:].mean(dim=0), dim=-1))
    name = f"{top},query_prompt={write_value(prompt)}" if prompt else str(top)
    found = load_encoder(name, device="cpu").encode_queries(texts)
    np.testing.assert_allclose(found, torch.stack(expected), atol=1e-5)


def test_the_first_adapter_may_be_typed_where_the_second_does_not_name_it(llm2vec, monkeypatch):
    base, mntp, top = llm2vec
    expected = load_encoder(str(top), device="cpu").encode_queries(TEXTS)
    settings = json.loads((top / "adapter_config.json").read_text())
    write_json(top / "adapter_config.json", {**settings, "base_model_name_or_path": str(base)})
    monkeypatch.chdir(mntp.parent)
    typed = load_encoder(f"{top},adapter_base={mntp.name}", device="cpu")
    assert typed.name == f"{top},adapter_base={mntp}"  # means the same from another folder
    found = typed.encode_queries(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (
        np.abs(load_encoder(str(top), device="cpu").encode_queries(TEXTS) - expected).max() > 0.01
    )


def test_an_adapter_with_their_files_is_read_as_they_say(base_folder, tmp_path):
    base = base_folder["qwen3"]
    folder = write_adapter(tmp_path / "adapter", base)
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (kind, path) in enumerate(kinds)
        ],
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True},
    )
    assert needs_sentence_transformers(str(folder)) == ""
    model = load_encoder(str(folder), device="cpu")
    assert (model.spec.pooling, model.spec.attention, model.spec.ending) == (
        "eos",
        "causal",
        "none",
    )
    states = peft_states(base, [folder], TEXTS)
    expected = F.normalize(torch.stack([state[-2] for state in states]), dim=-1)
    np.testing.assert_allclose(model.encode_documents(TEXTS), expected, atol=1e-5)


def test_the_fingerprint_is_of_base_and_adapter(base_folder, tmp_path):
    one = write_adapter(tmp_path / "one", base_folder["llama"])
    two = write_adapter(tmp_path / "two", base_folder["llama"], seed=1)
    copy = shutil.copytree(one, tmp_path / "copy")
    first, second, same = (
        Embedder.load(f"{folder}:eos+causal", device="cpu").fingerprint
        for folder in (one, two, copy)
    )
    assert first.digest == same.digest
    assert [line.split()[0] for line in first.differences(second)] == ["weights"]
    moved = shutil.copytree(base_folder["mistral"], tmp_path / "base")
    other = Embedder.load(f"{one}:eos+causal,adapter_base={moved}", device="cpu").fingerprint
    assert other.digest != first.digest
    assert f"adapter_base={moved}" in other.model


@pytest.mark.parametrize("typed", ["", "mistral"])
def test_an_adapter_is_a_base_that_can_be_trained_further(base_folder, tmp_path, trained, typed):
    folder = write_adapter(tmp_path / "adapter", base_folder["llama"])
    other = str(base_folder[typed]) if typed else ""
    embedder = trained("eos", "causal", base=folder, adapter_base=other)
    expected = embedder.encode_documents(TEXTS)
    save_model(embedder, tmp_path / "model", record={})
    found = Embedder.load_folder(tmp_path / "model", device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_first_layers_take_their_part_of_the_adapter(base_folder, tmp_path):
    folder = write_adapter(tmp_path / "adapter", base_folder["llama"])
    model = Embedder.load(f"{folder}:eos+causal,base_layers=2", device="cpu")
    assert len(model.backbone.blocks()) == 2
    base = load_file(base_folder["llama"] / "model.safetensors")["layers.1.self_attn.q_proj.weight"]
    delta = load_file(folder / WEIGHTS)
    name = "base_model.model.layers.1.self_attn.q_proj.lora_{}.weight"
    moved = base + 2 * delta[name.format("B")] @ delta[name.format("A")]  # alpha 8 / rank 4
    torch.testing.assert_close(model.backbone.blocks()[1].self_attn.q_proj.weight.data, moved)


def _edit(folder, **changes):
    settings = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", {**settings, **changes})


def _no_weights(folder):
    (folder / WEIGHTS).unlink()


def _pickled(folder):
    tensors = load_file(folder / WEIGHTS)
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def _cut(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-50])


def _renamed(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({name.replace("q_proj", "wq"): t for name, t in tensors.items()}, folder / WEIGHTS)


def _whole(folder):
    safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (_no_weights, ModelError, "has no adapter_model.safetensors. Copy the folder again"),
        (_pickled, ModelError, "adapter_model.bin is not read, since pickle files can run code"),
        (_cut, ModelError, "cannot be read"),
        (_renamed, ModelError, "does not fit .*: it holds 'base_model.model.layers.0.self_attn.wq"),
        (_whole, ModelError, "holds a whole model and an adapter"),
        (lambda f: _edit(f, peft_type="LOHA"), ModelError, "of the kind LOHA; expected LORA"),
        (lambda f: _edit(f, peft_type=None), ModelError, "names no peft_type"),
        (
            lambda f: _edit(f, base_model_name_or_path=None),
            ModelError,
            "names no base .*,adapter_base=",
        ),
        (lambda f: _edit(f, base_model_name_or_path=str(f)), ModelError, "names itself"),
        (
            lambda f: _edit(f, base_model_name_or_path="/home/author/llama"),
            UsageError,
            "of the base '/home/author/llama', which is not here. Type the base",
        ),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(base_folder, tmp_path, damage, kind, message):
    folder = write_adapter(tmp_path / "adapter", base_folder["llama"])
    damage(folder)
    with pytest.raises(kind, match=message) as caught:
        load_encoder(f"{folder}:eos+causal", device="cpu")
    assert "\n" not in str(caught.value)


def test_an_adapter_of_another_base_is_refused(base_folder, tmp_path):
    folder = write_adapter(tmp_path / "adapter", base_folder["llama"])
    with pytest.raises(ModelError, match="does not fit .*another base"):
        load_encoder(f"{folder}:eos+causal,adapter_base={base_folder['gpt2']}", device="cpu")


def test_an_adapter_has_to_say_or_be_told_how_it_embeds(base_folder, tmp_path):
    folder = write_adapter(tmp_path / "adapter", base_folder["llama"])
    with pytest.raises(UsageError, match=r"do not say how it embeds .*Type how: .*:eos\+causal"):
        load_encoder(str(folder), device="cpu")


def test_a_base_that_is_no_adapter_takes_no_adapter_base(base_folder):
    with pytest.raises(UsageError, match="adapter_base is 'x', but .* is no adapter"):
        load_encoder(f"{base_folder['llama']}:eos+causal,adapter_base=x", device="cpu")
