"""A model as a GGUF file with its pooling, for llama.cpp and what is built on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from embedder.embedder import Embedder
from embedder.export.framing import Framing, refuse
from retrieval.protocols import Floats, Notify

GGUF = "model.gguf"

_POOLINGS = {"mean": "MEAN", "eos": "LAST", "cls": "CLS"}
"""Ours to gguf.PoolingType's."""
_ARCHITECTURES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""transformers' model_type to gguf.MODEL_ARCH's."""
_BOTH_WAYS = {"LLAMA": "LLAMA_EMBED"}
"""The architectures of llama.cpp that attend both ways, by those that do not."""
_DIGITS = {r"\p{N}": "qwen2", r"\p{N}{1,3}": "llama-bpe"}
_PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": name
    for digits, name in _DIGITS.items()
}
"""How a tokenizer splits a text before its merges, to llama.cpp's name of it."""
_NORMAL, _CONTROL = 1, 3  # kinds of tokens in a GGUF file


def write_gguf(embedder: Embedder, framing: Framing, folder: Path, notify: Notify) -> None:
    """Write model.gguf, its weights float32.

    Raises
    ------
    UsageError : llama.cpp cannot represent the model; names what of it.
    """
    from gguf import GGUFWriter

    architecture = _check(embedder)
    config: Any = embedder.backbone.model.config
    tokens = json.loads(embedder.backbone.tokenizer.backend_tokenizer.to_str())
    settings = _tokenizer_settings(embedder, framing, tokens)
    writer = GGUFWriter(folder / GGUF, architecture.lower().replace("_", "-"))
    _add_shape(writer, embedder, config)
    _add_tokenizer(writer, tokens, settings, config.vocab_size)
    _add_weights(writer, architecture, config, embedder.backbone.model.state_dict())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for side, prompt in framing.prompts.items():
        if prompt:
            notify(
                f"Warning: llama.cpp puts no prompt before a text: clients have to add {side} "
                f"{prompt!r} (embedding.json holds it)"
            )


def _check(embedder: Embedder) -> str:
    """Return llama.cpp's architecture of the model, or raise UsageError."""
    spec = embedder.spec
    config: Any = embedder.backbone.model.config
    kind = str(config.model_type)
    name = _ARCHITECTURES.get(kind, "")
    both_ways = not embedder.backbone.attention.is_causal
    rope = getattr(config, "rope_parameters", None) or {}
    window = int(getattr(config, "sliding_window", None) or 0)
    if getattr(config, "use_sliding_window", True) is False:
        window = 0
    obstacles = {
        f"llama.cpp has no pooling {spec.pooling}": spec.pooling not in _POOLINGS,
        "llama.cpp puts no text in lower case": spec.lowercase,
        "llama.cpp has no whitening": spec.pooling_options.whiten,
        "llama.cpp has no layers after the pooling": bool(spec.head),
        "llama.cpp does not cut vectors (dimension)": embedder.dimension < embedder.width,
        f"the architecture {kind} is not written here": not name,
        f"llama.cpp's {kind} attends one way alone": both_ways and name not in _BOTH_WAYS,
        f"its RoPE is scaled ({rope.get('rope_type')})": rope.get("rope_type") != "default",
        f"its attention has a window of {window} tokens": 0 < window < spec.max_tokens,
    }
    for obstacle, stands in obstacles.items():
        if stands:
            raise refuse(embedder, obstacle, "Type --format onnx, which represents it.")
    return _BOTH_WAYS[name] if both_ways else name


def _tokenizer_settings(
    embedder: Embedder, framing: Framing, tokens: dict[str, Any]
) -> dict[str, Any]:
    """Return how llama.cpp splits and frames texts, or raise UsageError."""
    bos = embedder.backbone.tokenizer.bos_token_id
    obstacle = ""
    pre = _name_pre_tokenizer(tokens)
    if tokens["model"].get("type") != "BPE" or not tokens["model"].get("merges") or not pre:
        obstacle = "its tokenizer is no byte-level BPE that llama.cpp knows"
    elif len(framing.head) > 1 or (framing.head and framing.head[0] != bos):
        obstacle = "before a text stand other tokens than BOS"
    elif len(framing.tail) > 1:
        obstacle = "after a text stands more than one token"
    if obstacle:
        raise refuse(embedder, obstacle, "Type --format onnx, which represents it.")
    return {
        "pre": pre,
        "bos": bos,
        "eos": framing.tail[0] if framing.tail else embedder.backbone.tokenizer.eos_token_id,
        "pad": framing.pad_id,
        "adds_bos": bool(framing.head),
        "adds_eos": bool(framing.tail),
    }


def _name_pre_tokenizer(tokens: dict[str, Any]) -> str:
    """Return llama.cpp's name of how texts are split before merges, "" for none that it has."""
    if tokens.get("normalizer") not in (None, {"type": "NFC"}):
        return ""
    found = tokens.get("pre_tokenizer") or {}
    parts = found.get("pretokenizers", [found])
    kinds = [part.get("type") for part in parts]
    last = parts[-1]
    if kinds[-1] != "ByteLevel" or last.get("add_prefix_space"):
        return ""
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
        return _PRE_TOKENIZERS.get(str(parts[0].get("pattern", {}).get("Regex")), "")
    return ""


def _add_shape(writer: Any, embedder: Embedder, config: Any) -> None:
    from gguf import PoolingType

    width = config.hidden_size // config.num_attention_heads
    head = getattr(config, "head_dim", None) or width
    writer.add_name(Path(embedder.name).name)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_causal_attention(embedder.backbone.attention.is_causal)
    writer.add_pooling_type(PoolingType[_POOLINGS[embedder.spec.pooling]])


def _add_tokenizer(
    writer: Any, tokens: dict[str, Any], settings: dict[str, Any], vocabulary: int
) -> None:
    special = {each["content"] for each in tokens["added_tokens"] if each["special"]}
    ids = dict(tokens["model"]["vocab"])
    ids |= {each["content"]: each["id"] for each in tokens["added_tokens"]}
    names = {number: name for name, number in ids.items()}
    listed = [names.get(number, f"[PAD{number}]") for number in range(vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(settings["pre"])
    writer.add_token_list(listed)
    writer.add_token_types([_CONTROL if name in special else _NORMAL for name in listed])
    merges = tokens["model"]["merges"]
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    for kind in ("bos", "eos", "pad"):
        if settings[kind] is not None:
            getattr(writer, f"add_{kind}_token_id")(settings[kind])
    writer.add_add_bos_token(settings["adds_bos"])
    writer.add_add_eos_token(settings["adds_eos"])
    writer.add_add_space_prefix(False)


def _add_weights(writer: Any, architecture: str, config: Any, weights: dict[str, Tensor]) -> None:
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH[architecture], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in weights.items():
        numbers = tensor.float().numpy()
        if architecture.startswith("LLAMA"):  # the others rotate halves, as transformers does
            for part, count in heads.items():
                if f".{part}." in name:
                    numbers = _interleave(numbers, count)
        writer.add_tensor(names.get_name(f"model.{name}", (".weight", ".bias")), numbers)


def _interleave(numbers: Floats, heads: int) -> Floats:
    """Put the two halves of each head's rows in turn, as llama.cpp's RoPE of Llama expects them."""
    halves = numbers.reshape(heads, 2, len(numbers) // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(numbers.shape))
