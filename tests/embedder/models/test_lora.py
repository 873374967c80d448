"""LoRA on the backbone: what moves, what stays, and folding it in."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModel

from embedder import Embedder, VariantSpec
from embedder.models.lora import (
    LoraOptions,
    adapter_config,
    adapter_tensors,
    add_adapter,
    has_adapter,
    load_adapter,
    merge_adapter,
)
from embedder.models.saving import save_model
from retrieval.errors import ModelError, UsageError
from tests.embedder.conftest import every_variant
from tests.embedder.tiny_decoders import byte_tokenizer

TEXTS = ["a", "the quick brown fox", "", "mills grind slowly, ponds fill slower"]
VARIANTS = every_variant()
SMALL = LoraOptions(rank=2, alpha=4)


def load(folder, pooling="mean", attention="causal", **settings):
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=96)
    return Embedder.from_spec(spec, device="cpu", **settings)


@pytest.fixture
def llama(base_folder):
    return base_folder["llama"]


def test_a_new_adapter_leaves_every_vector_as_it_was(llama):
    """B starts at zero, so W + 2 B A = W."""
    embedder = load(llama)
    before = embedder.encode_documents(TEXTS)
    add_adapter(embedder.backbone, SMALL)
    assert has_adapter(embedder.backbone)
    assert np.array_equal(embedder.encode_documents(TEXTS), before)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3", "gpt2"])
def test_only_the_lora_weights_of_every_linear_layer_are_trainable(base_folder, architecture):
    backbone = load(base_folder[architecture]).backbone
    add_adapter(backbone, SMALL)
    moving = {name for name, p in backbone.named_parameters() if p.requires_grad}
    linear = 4 if architecture == "gpt2" else 7  # q k v o gate up down; gpt2 joins q k v
    assert len(moving) == 2 * linear * backbone.layer_count
    assert all("lora_A" in name or "lora_B" in name for name in moving)


def test_targets_name_the_layers_that_are_wrapped(llama):
    backbone = load(llama).backbone
    add_adapter(backbone, LoraOptions(rank=2, targets=("q_proj", "v_proj")))
    assert {name.split(".")[-3] for name in adapter_tensors(backbone)} == {"q_proj", "v_proj"}
    assert len(adapter_tensors(backbone)) == 2 * 2 * 4


EXPERTS = {
    "MixtralConfig": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3MoeConfig": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Llama4TextConfig": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "DeepseekV3Config": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 16,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "v_head_dim": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "num_key_value_heads": 4,
    },
    "Qwen3NextConfig": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["full_attention"] * 2,
    },
}


@pytest.fixture(params=EXPERTS)
def mixture(tmp_path, request):
    shared = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8}
    shared |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shared |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, request.param)(**shared | EXPERTS[request.param])
    AutoModel.from_config(config).save_pretrained(tmp_path / "mixture")
    byte_tokenizer().save_pretrained(tmp_path / "mixture")
    return tmp_path / "mixture"


def test_of_a_mixture_of_experts_the_linear_layers_are_trained_saved_and_read(
    mixture, tmp_path, adapt
):
    embedder = load(mixture)
    modules = dict(embedder.backbone.model.named_modules())
    linear = {name for name, module in modules.items() if type(module) is nn.Linear}
    adapt(embedder)
    names = [name.removeprefix("base_model.model.") for name in adapter_tensors(embedder.backbone)]
    assert {name.rsplit(".", 2)[0] for name in names} == linear
    save_model(embedder, tmp_path / "saved", record={})
    saved = Embedder.load(str(tmp_path / "saved"), device="cpu")
    expected = embedder.encode_documents(TEXTS)
    np.testing.assert_allclose(saved.encode_documents(TEXTS), expected, atol=1e-5)
    assert np.abs(load(mixture).encode_documents(TEXTS) - expected).max() > 1e-3


@pytest.mark.filterwarnings("ignore:The following:RuntimeWarning")  # peft's, of its own patterns
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("mixture", ["Qwen3MoeConfig"], indirect=True)
def test_lora_on_fused_experts_which_would_not_be_saved_is_refused(mixture, dropout):
    targets = ("gate_proj", "up_proj", "down_proj")
    with pytest.raises(UsageError, match=r"linear layers: k_proj, o_proj, q_proj, v_proj\."):
        options = LoraOptions(rank=2, dropout=dropout, targets=targets)
        add_adapter(load(mixture).backbone, options)


def test_the_first_weights_depend_on_the_seed_alone_and_the_random_state_stays(llama):
    def first(seed):
        torch.rand(7)
        backbone = load(llama).backbone
        state = torch.get_rng_state()
        add_adapter(backbone, SMALL, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return next(t for name, t in adapter_tensors(backbone).items() if "lora_A" in name)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_the_models_class_its_layers_and_its_mode_stay(llama):
    backbone = load(llama).backbone
    kind, blocks = type(backbone.model), list(backbone.blocks())
    add_adapter(backbone, SMALL)
    assert type(backbone.model) is kind
    assert list(backbone.blocks()) == blocks
    assert not any(module.training for module in backbone.modules())
    merge_adapter(backbone)
    assert type(backbone.model) is kind
    assert type(backbone.blocks()[0].mlp.up_proj) is torch.nn.Linear
    assert not has_adapter(backbone)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_merging_keeps_every_vector(trained, pooling, attention):
    embedder = trained(pooling, attention)
    before = embedder.encode_documents(TEXTS)
    merge_adapter(embedder.backbone)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), before, atol=1e-5)


def test_merging_keeps_vectors_where_weights_are_transposed(base_folder, trained):
    embedder = trained(base=base_folder["gpt2"], max_tokens=48)
    before = embedder.encode_documents(TEXTS)
    assert np.abs(before - load(base_folder["gpt2"]).encode_documents(TEXTS)).max() > 1e-3
    merge_adapter(embedder.backbone)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), before, atol=1e-5)


def test_merging_adds_scale_times_b_times_a(llama):
    """alpha 4 / rank 2 = 2, A is all 1, B is all 0.5: every weight grows by 2 x (2 x 0.5 x 1)."""
    backbone = load(llama).backbone
    weight = backbone.blocks()[0].mlp.up_proj.weight.clone()
    add_adapter(backbone, SMALL)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if parameter.requires_grad:
                parameter.fill_(1.0 if "lora_A" in name else 0.5)
    merge_adapter(backbone)
    merged = backbone.blocks()[0].mlp.up_proj.weight
    torch.testing.assert_close(merged, weight + 2.0)


def test_lora_weights_are_float32_on_a_bfloat16_base(llama):
    embedder = load(llama, dtype=torch.bfloat16)
    add_adapter(embedder.backbone, SMALL)
    kinds = {p.dtype for p in embedder.backbone.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    assert np.isfinite(embedder.encode_documents(TEXTS)).all()
    merge_adapter(embedder.backbone)
    assert {p.dtype for p in embedder.backbone.parameters()} == {torch.bfloat16}


def test_dropout_acts_only_while_training(trained):
    embedder = trained(lora=LoraOptions(rank=2, dropout=0.5))
    ids = torch.arange(3, 19).reshape(1, 16)
    ones = torch.ones_like(ids)
    with torch.no_grad():
        assert torch.equal(embedder(ids, ones), embedder(ids, ones))
        embedder.train()
        assert not torch.equal(embedder(ids, ones), embedder(ids, ones))


# peft 0.21's own wrapper, which we do not use, asks transformers 5.23 for an old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_itself_reads_what_is_written(trained, tmp_path, llama):
    from peft import PeftModel

    backbone = trained().backbone
    save_file(adapter_tensors(backbone), tmp_path / "adapter_model.safetensors")
    text = json.dumps(adapter_config(backbone, str(llama)))
    (tmp_path / "adapter_config.json").write_text(text)
    ids = torch.arange(3, 19).reshape(2, 8)
    with torch.inference_mode():
        expected = backbone.token_states(ids, torch.ones_like(ids))
        loaded = PeftModel.from_pretrained(AutoModel.from_pretrained(llama), str(tmp_path)).eval()
        found = loaded(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_peft_gives_bidirectional_vectors_with_the_one_line_of_the_docs(
    trained, tmp_path, base_folder, architecture
):
    """docs/saved-models.md: base.config.is_causal = False; without it vectors are others."""
    from peft import PeftModel

    base = base_folder[architecture]
    embedder = trained("mean", "bidirectional", base=base)
    save_model(embedder, tmp_path / "model", record={})
    expected = embedder.encode_documents(["water stands in the pond"])
    ids = torch.tensor(embedder.tokenize(["water stands in the pond"]))
    found = {}
    for is_causal in (True, False):
        plain = AutoModel.from_pretrained(base)
        plain.config.is_causal = is_causal
        loaded = PeftModel.from_pretrained(plain, str(tmp_path / "model" / "adapter")).eval()
        with torch.inference_mode():
            states = loaded(input_ids=ids).last_hidden_state.mean(dim=1)
        found[is_causal] = torch.nn.functional.normalize(states, dim=-1).numpy()
    np.testing.assert_allclose(found[False], expected, atol=1e-5)
    assert np.abs(found[True] - expected).max() > 0.01
    named = Embedder.load(f"{tmp_path}/model/adapter:mean+bidirectional", device="cpu")
    same = named.encode_documents(["water stands in the pond"])
    np.testing.assert_allclose(same, expected, atol=1e-5)


def test_an_adapter_of_another_kind_is_refused(llama, tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA", "r": 2}')
    with pytest.raises(ModelError, match="adapter_config.json"):
        load_adapter(load(llama).backbone, tmp_path, {})


def test_a_second_adapter_and_targets_that_do_not_exist_are_refused(llama):
    backbone = load(llama).backbone
    with pytest.raises(UsageError, match=r"\('wq',\) do not fit LlamaModel"):
        add_adapter(backbone, LoraOptions(targets=("wq",)))
    assert not has_adapter(backbone)
    add_adapter(backbone, SMALL)
    with pytest.raises(UsageError, match="has an adapter already"):
        add_adapter(backbone, SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0; it must be 1 or more"),
        ({"alpha": 0}, "alpha is 0"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 to below 1"),
        ({"targets": "q_proj"}, "expected 'all-linear' or one or more"),
        ({"targets": ()}, "expected 'all-linear'"),
    ],
)
def test_options_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        LoraOptions(**settings)
