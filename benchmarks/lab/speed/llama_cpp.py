"""The plain base in llama.cpp, if that is installed: the same weights in its own formats."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedder.light.decoder import TensorFile
from retrieval.errors import ModelError
from retrieval.protocols import Floats, Vectors

__all__ = ["FORMATS", "LlamaCppEncoder", "has_llama_cpp", "write_gguf"]

FORMATS = ("F32", "Q8_0", "Q4_0")
"""The formats of weights that are compared, by llama.cpp's names."""

_BATCH_TOKENS = 512
_PRE_TOKENIZER = "smollm"
_NORMAL, _CONTROL = 1, 3  # kinds of tokens in a GGUF file


def has_llama_cpp() -> bool:
    """Whether the package ``llama-cpp-python`` is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


class LlamaCppEncoder:
    """Texts one after another in batches of 512 tokens without padding, as ``Llama.embed`` does.

    It takes as many threads as torch does.

    Parameters
    ----------
    folder : what ``write_gguf`` wrote to; the quantised file is kept beside it.
    form : one of ``FORMATS``.
    lowercase : whether texts are read in lower case, which a GGUF file cannot say.
    """

    def __init__(self, folder: Path, max_tokens: int, form: str, *, lowercase: bool) -> None:
        library: Any = importlib.import_module("llama_cpp")
        path = folder / f"{form}.gguf"
        if not path.exists():
            _quantise(library, folder / "F32.gguf", path, form)
        self._lowercase = lowercase
        self._max_tokens = max_tokens
        threads = torch.get_num_threads()
        self._model = library.Llama(
            str(path),
            embedding=True,
            pooling_type=library.LLAMA_POOLING_TYPE_MEAN,
            n_ctx=_BATCH_TOKENS,
            n_batch=_BATCH_TOKENS,
            n_ubatch=_BATCH_TOKENS,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        atexit.register(self._model.close)  # later, the functions it calls would be gone

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1."""
        found = self._model.embed([self._read(text) for text in texts], normalize=True)
        return np.asarray(found, dtype=np.float32)

    def _read(self, text: str) -> str:
        """Return the text, cut to the tokens that the others see."""
        text = text.lower() if self._lowercase else text
        ids = self._model.tokenize(text.encode(), add_bos=False)
        if len(ids) < self._max_tokens:
            return text
        kept: bytes = self._model.detokenize(ids[: self._max_tokens - 1])
        return kept.decode(errors="ignore")


def write_gguf(folder: Path) -> None:
    """Write a plain Llama base as F32.gguf into its own folder.

    Raises
    ------
    ModelError : the base is no Llama with a byte-level BPE, or its BPE merges nothing.
    """
    from gguf import GGUFWriter

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "llama" or not tokens["model"].get("merges"):
        raise ModelError(f"{folder} is no Llama with a byte-level BPE, so llama.cpp is left out.")
    writer = GGUFWriter(folder / "F32.gguf", "llama")
    _add_shape(writer, config)
    _add_tokenizer(writer, config, tokens)
    _add_weights(writer, config, TensorFile(folder / "model.safetensors"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    from gguf import PoolingType

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_pooling_type(PoolingType.MEAN)


def _add_tokenizer(writer: Any, config: dict[str, Any], tokens: dict[str, Any]) -> None:
    ids = dict(tokens["model"]["vocab"])
    special = {each["content"] for each in tokens["added_tokens"] if each["special"]}
    ids.update({each["content"]: each["id"] for each in tokens["added_tokens"]})
    names = sorted(ids, key=ids.__getitem__)
    merges = tokens["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE_TOKENIZER)
    writer.add_token_list(names)
    writer.add_token_types([_CONTROL if name in special else _NORMAL for name in names])
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
    writer.add_add_space_prefix(False)


def _add_weights(writer: Any, config: dict[str, Any], tensors: TensorFile) -> None:
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name in tensors:
        weights = np.asarray(tensors[name], dtype=np.float32)
        for part, count in heads.items():
            if part in name:
                weights = _interleave(weights, count)
        writer.add_tensor(names.get_name(f"model.{name}", (".weight",)), weights)


def _interleave(weights: Floats, heads: int) -> Floats:
    """Put the two halves of each head's rows in turn, as llama.cpp's RoPE expects them."""
    shape = weights.shape
    halves = weights.reshape(heads, 2, shape[0] // heads // 2, shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(shape))


def _quantise(library: Any, source: Path, target: Path, form: str) -> None:
    settings = library.llama_model_quantize_default_params()
    settings.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{form}")
    settings.nthread = torch.get_num_threads()
    code = library.llama_model_quantize(str(source).encode(), str(target).encode(), settings)
    if code != 0:
        raise ModelError(f"llama.cpp could not write {target} (code {code}).")
