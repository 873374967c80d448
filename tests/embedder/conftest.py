"""Tiny random decoders, built here, so that no test needs a download."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from embedder import Embedder, VariantSpec
from embedder.engine.fused import BuildError, load_functions
from embedder.models.lora import LoraOptions, add_adapter

# Threads cost more than they give on models this small, and make a busy machine crawl.
torch.set_num_threads(1)

SPECIALS = ["<pad>", "<bos>", "<eos>"]


def byte_tokenizer(*, pad="<pad>", adds_bos=False):
    """One token a byte after three specials; ids 3 to 258."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIALS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token="<bos>", eos_token="<eos>"
    )


_SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {"vocab_size": 259, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

ARCHITECTURES = {
    "llama": LlamaConfig(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES),
    "mistral": MistralConfig(**_SIZES, sliding_window=8),
    "gemma3": Gemma3TextConfig(**_SIZES, sliding_window=8),
    "gpt2": GPT2Config(**_GPT, n_embd=32, n_layer=2, n_head=4),
    "gpt_neo": GPTNeoConfig(
        **_GPT,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
    ),
}
SMALL_LORA = LoraOptions(rank=2, alpha=4)
FOLLOWING = ("llama", "qwen3", "mistral", "gemma3")
"""The architectures on which every variant must work."""


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """One saved tiny base per architecture; gemma3's tokenizer adds BOS, llama's pad is EOS."""
    folders = {}
    for name, config in ARCHITECTURES.items():
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:  # larger than the usual start, so attention matters
                    parameter.mul_(4)
        model.save_pretrained(folder)
        pad = "<eos>" if name == "llama" else "<pad>"
        byte_tokenizer(pad=pad, adds_bos=name == "gemma3").save_pretrained(folder)
        folders[name] = folder
    return folders


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep tests out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def functions():
    """Skip where the functions of fused.c cannot be compiled."""
    try:
        load_functions()
    except BuildError as error:
        pytest.skip(f"layers are not fused here: {error}")


@pytest.fixture
def unfused(monkeypatch):
    """As where there is no C compiler."""
    for place in ("probe.fused_layers", "speed.fused_int8_layers"):
        monkeypatch.setattr(f"embedder.engine.{place}", lambda layers: ())


@pytest.fixture
def fast(monkeypatch):
    """Load mean+causal with int8 on any CPU; one without the instructions is slow at it."""
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)

    def load(folder, pooling="mean", attention="causal", **how):
        spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=48)
        return Embedder.from_spec(spec, device="cpu", speed="fast", **how)

    return load


@pytest.fixture
def adapt():
    """Put LoRA into an embedder that changes its vectors, in evaluation mode."""

    def change(embedder):
        add_adapter(embedder.backbone, LoraOptions(rank=2, alpha=4))
        for name, weights in embedder.backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.3)
        embedder.eval()

    return change


@pytest.fixture
def trained(base_folder):
    """Return a model on a tiny base as if trained: LoRA and pooling weights are not the first."""

    def build(
        pooling="mean",
        attention="causal",
        *,
        base=base_folder["llama"],
        seed=0,
        lora=SMALL_LORA,
        **settings,
    ):
        spec = VariantSpec(
            base=str(base),
            pooling=pooling,
            attention=attention,
            **{"max_tokens": 96, **settings},
        )
        embedder = Embedder.from_spec(spec, device="cpu")
        embedder.backbone.requires_grad_(False)
        if lora is not None:
            add_adapter(embedder.backbone, lora)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in embedder.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        return embedder

    return build
