"""Tiny random decoders in the folder layouts of published embedding models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    Gemma3TextConfig,
    GPT2Config,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SPECIALS = ["<pad>", "<s>", "</s>", "<|endoftext|>", "<|im_end|>", "<|embed|>"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "c"), ("o", "r"), ("or", "n")]
TOKENS = [*SPECIALS, *ALPHABET, *("".join(pair) for pair in MERGES)]
_TYPE = "sentence_transformers.models."
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
INSTRUCT = "Instruct: Given a web search query, retrieve passages\nQuery:"


def _make(call: Any, *arguments: Any, **settings: Any) -> Any:
    """Return what a library's untyped function makes."""
    return call(*arguments, **settings)


def make_tokenizer(
    *, single: str, eos: str, length: int | None = None, settings: Mapping[str, Any] | None = None
) -> Any:
    """Return a byte-level BPE that puts ``single`` around a text, "$A" in its place."""
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    if single != "$A":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single,
            pair=f"{single} $B",
            special_tokens=[(token, vocabulary[token]) for token in SPECIALS],
        )
    limit = {} if length is None else {"model_max_length": length}
    return _make(
        PreTrainedTokenizerFast,
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token=eos,
        **limit,
        **(settings or {}),
    )


def write_json(path: Path, data: object) -> None:
    """Write a JSON file and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_layout(
    folder: Path,
    config: Any,
    pooling: Sequence[str],
    *,
    single: str = "$A",
    eos: str = "</s>",
    include_prompt: bool = True,
    dense: Sequence[tuple[int, bool, str]] = (),
    normalize: bool = True,
    prompts: Mapping[str, Any] | None = None,
    max_seq_length: Any = None,
    length: int | None = None,
    lower: bool = False,
    settings: Mapping[str, Any] | None = None,
    library: Mapping[str, Any] | None = None,
) -> Path:
    """Save a random model, its tokenizer and the files that sentence-transformers reads.

    Parameters
    ----------
    config : of transformers.
    pooling : the modes that are true, such as "lasttoken".
    single : what the tokenizer puts around a text.
    dense : (out_features, bias, activation) of each layer after the pooling.
    length : ``model_max_length`` of the tokenizer.
    settings : more of the tokenizer.
    library : more of config_sentence_transformers.json.
    """
    torch.manual_seed(0)
    model = _make(AutoModel.from_config, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # larger than the usual start, so attention matters
                parameter.mul_(4)
    model.save_pretrained(folder)
    make_tokenizer(single=single, eos=eos, length=length, settings=settings).save_pretrained(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modes: tuple[str, ...] = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    modes = (*modes, "weightedmean_tokens", "lasttoken")
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": 32,
            **{f"pooling_mode_{mode}": mode in pooling for mode in modes},
            "include_prompt": include_prompt,
        },
    )
    width = 32
    for out, bias, activation in dense:
        path = f"{len(modules)}_Dense"
        modules.append(("Dense", path))
        write_json(
            folder / path / "config.json",
            {
                "in_features": width,
                "out_features": out,
                "bias": bias,
                "activation_function": f"torch.nn.modules.{activation}",
            },
        )
        weights = {"linear.weight": torch.randn(out, width)}
        if bias:
            weights["linear.bias"] = torch.randn(out)
        save_file(weights, folder / path / "model.safetensors")
        width = out
    if normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": place, "name": str(place), "path": path, "type": f"{_TYPE}{kind}"}
            for place, (kind, path) in enumerate(modules)
        ],
    )
    if max_seq_length is not None or lower:
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": max_seq_length, "do_lower_case": lower},
        )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": prompts or {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            **(library or {}),
        },
    )
    return folder


LAYOUTS: dict[str, dict[str, Any]] = {
    "qwen3-embedding": {
        "config": _make(Qwen3Config, **SIZES),
        "pooling": ["lasttoken"],
        "single": "$A <|endoftext|>",
        "eos": "<|im_end|>",
        "prompts": {"query": INSTRUCT, "document": ""},
        "length": 64,
    },
    "e5-mistral": {
        "config": _make(MistralConfig, **SIZES, sliding_window=None),
        "pooling": ["lasttoken"],
        "single": "<s> $A </s>",
        "max_seq_length": 48,
    },
    "gte-qwen2": {
        "config": _make(Qwen2Config, **SIZES, is_causal=False),
        "pooling": ["lasttoken"],
        "single": "$A <|endoftext|>",
        "eos": "<|endoftext|>",
        "prompts": {"query": INSTRUCT},
        "max_seq_length": 64,
    },
    "gritlm": {
        "config": _make(MistralConfig, **SIZES, sliding_window=None, is_causal=False),
        "pooling": ["mean_tokens"],
        "single": "<s> $A",
        "include_prompt": False,
        "prompts": {"query": "<|user|>\nFind it\n<|embed|>\n", "document": "<|embed|>\n"},
        "max_seq_length": 64,
    },
    "stella": {
        "config": _make(Qwen2Config, **SIZES),
        "pooling": ["mean_tokens"],
        "single": "$A <|endoftext|>",
        "dense": [(48, True, "linear.Identity")],
        "normalize": False,
        "prompts": {"query": INSTRUCT},
        "max_seq_length": 64,
    },
    "bidirectional-mean": {
        "config": _make(Qwen3Config, **SIZES, is_causal=False),
        "pooling": ["mean_tokens"],
        "prompts": {"query": "query: ", "document": "passage: "},
        "length": 10**30,
    },
    "embeddinggemma": {
        "config": _make(
            Gemma3TextConfig, **SIZES, sliding_window=8, use_bidirectional_attention=True
        ),
        "pooling": ["mean_tokens"],
        "single": "<s> $A </s>",
        "dense": [(64, False, "linear.Identity"), (32, False, "linear.Identity")],
        "prompts": {
            "query": "task: search result | query: ",
            "document": "title: none | text: ",
        },
        "max_seq_length": 96,
    },
    "sgpt": {
        "config": _make(
            GPT2Config,
            vocab_size=len(TOKENS),
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=64,
            pad_token_id=0,
        ),
        "pooling": ["weightedmean_tokens"],
        "normalize": False,
        "prompts": {"query": "[", "document": "{"},
        "max_seq_length": 48,
    },
    "cls-tanh-lower": {
        "config": _make(Qwen3Config, **SIZES, is_causal=False),
        "pooling": ["cls_token"],
        "single": "<s> $A </s>",
        "dense": [(24, True, "activation.Tanh")],
        "prompts": {"query": "Query: ", "document": "Text: "},
        "lower": True,
        "max_seq_length": 32,
    },
    "max": {
        "config": _make(Qwen3Config, **SIZES),
        "pooling": ["max_tokens"],
        "single": "<s> $A",
        "max_seq_length": 32,
    },
}
"""A published layout's name to the arguments of ``write_layout``."""
