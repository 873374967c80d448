"""Tiny random decoders, so that no test needs a download."""

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


def write_base(folder, architecture):
    """Save a decoder with its tokenizer: gemma3's adds BOS, llama's pads with EOS."""
    torch.manual_seed(0)
    model = AutoModel.from_config(ARCHITECTURES[architecture])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # larger than the usual start, so attention matters
                parameter.mul_(4)
    model.save_pretrained(folder)
    pad = "<eos>" if architecture == "llama" else "<pad>"
    byte_tokenizer(pad=pad, adds_bos=architecture == "gemma3").save_pretrained(folder)
    return folder
