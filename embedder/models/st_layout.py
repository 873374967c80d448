"""How sentence-transformers finds a MODEL_DIR: its own modules where they give the same vectors.

A folder that holds all weights, or an adapter on a base that transformers finds, with a pooling
that sentence-transformers has, is written as Transformer, Pooling, Dense and Normalize, and needs
neither millpond nor ``trust_remote_code``. Every other one names ``MillpondModule``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from embedder.engine.text import TextTokenizer
from embedder.environment import quiet_transformers
from embedder.models.bases import BASES
from embedder.models.foreign.adapters import read_adapter
from embedder.models.foreign.files import find_code
from embedder.models.names import ADAPTER_CONFIG, find_path
from embedder.pooling import HeadLayer
from embedder.variants import VariantSpec

NOT_WHOLE = "the base's weights are not in the folder"

_ADAPTER = str(Path(ADAPTER_CONFIG).parent)
_DECODER_CONFIG = f"{_ADAPTER}/decoder_config.json"
"""The configuration of an adapter's decoder: its base's, with the attention and depth trained."""

_OURS = "embedder.models.sentence_transformers_module.MillpondModule"
_THEIRS = "sentence_transformers.models."
"""Where every version of sentence-transformers finds its modules."""
_POOLINGS = {
    "eos": "lasttoken",
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "weighted_mean": "weightedmean_tokens",
}
_ACTIVATIONS = {"Identity": "torch.nn.modules.linear.Identity"}
_PROBE = ["", "The mill GRINDS corn.\n", " Un été: naïve 水车 🙂 (1,234)  end"]


@dataclass(frozen=True)
class Decoder:
    """A model's decoder, as transformers describes it: its configuration and its tokenizer."""

    config: Any
    tokenizer: Any


def read_decoder(folder: Path) -> Decoder | None:
    """Return what an adapter's folder says of its decoder; None where it names our module."""
    from transformers import AutoConfig, AutoTokenizer

    if not (folder / _DECODER_CONFIG).is_file():
        return None
    with quiet_transformers():
        config = AutoConfig.from_pretrained(
            str(folder), _configuration_file=_DECODER_CONFIG, trust_remote_code=False
        )
        return Decoder(config, AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False))


def write_layout(
    folder: Path,
    spec: VariantSpec,
    decoder: Decoder | None,
    width: int,
    pooling: Mapping[str, Tensor],
) -> str:
    """Write modules.json and what it names; return why it names our module, "" where it does not.

    Parameters
    ----------
    folder : holds the whole model and its tokenizer as transformers writes them, which is changed
        so that it frames texts as the spec does; or an adapter; or neither.
    decoder : None where the folder holds neither.
    width : of the backbone's states.
    pooling : the weights after the pooling, by name, as they are saved.
    """
    adapted = (folder / ADAPTER_CONFIG).is_file()
    reason = NOT_WHOLE
    if decoder is not None:
        reason = _find_obstacle(spec) or (_find_base_obstacle(spec) if adapted else "")
    if decoder is not None and not reason:
        if adapted:
            decoder.tokenizer.save_pretrained(folder)
        if not _frame_texts(folder, spec, decoder.tokenizer):
            reason = "the tokenizer reads a text differently once it is saved with its ending"
    if decoder is None or reason:
        _write_modules(folder, [("", _OURS)])
        return reason
    settings: dict[str, Any] = {"max_seq_length": spec.max_tokens, "do_lower_case": spec.lowercase}
    if adapted:
        (folder / _DECODER_CONFIG).write_text(decoder.config.to_json_string(), encoding="utf-8")
        settings["config_kwargs"] = {"_configuration_file": _DECODER_CONFIG}
        settings["model_kwargs"] = {"adapter_kwargs": {"subfolder": _ADAPTER}}
    _write_json(folder / "sentence_bert_config.json", settings)
    modules = [("", f"{_THEIRS}Transformer"), ("1_Pooling", f"{_THEIRS}Pooling")]
    modes = {f"pooling_mode_{mode}": name == spec.pooling for name, mode in _POOLINGS.items()}
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, **modes, "include_prompt": True},
    )
    for layer, weights in _layers_after(spec, width, pooling):
        path = f"{len(modules)}_{layer.kind}"
        _write_layer(folder / path, layer, weights)
        modules.append((path, f"{_THEIRS}{layer.kind}"))
    _write_modules(folder, modules)
    return ""


def _find_obstacle(spec: VariantSpec) -> str:
    """Return what of a model sentence-transformers' own modules do not have, "" for nothing."""
    prompts = (spec.query_prompt, spec.document_prompt)
    if spec.pooling not in _POOLINGS:
        return f"the pooling {spec.pooling}"
    if spec.chat_template:
        return "the chat template"
    if any("{text}" in prompt for prompt in prompts):
        return "a prompt that goes on after the text"
    if not spec.pool_prompt:
        return "a pooling that leaves the prompt out"
    if spec.prompt_specials:
        return "special tokens that are read out of prompts alone"
    if spec.lowercase and any(prompt != prompt.lower() for prompt in prompts):
        return "lower case for texts and not for prompts"
    return ""


def _find_base_obstacle(spec: VariantSpec) -> str:
    """Return why transformers would not find the base that an adapter was trained on, or ""."""
    path = find_path(spec.base)
    if spec.base in BASES:
        return f"the base {spec.base}, which has no folder or hub id of its own"
    if path is not None and not path.is_dir():
        return "a base in a GGUF file"
    if spec.revision:
        return f"the revision {spec.revision} of its base, which an adapter's files do not name"
    if spec.adapter_base or read_adapter(spec.base):
        return "a base that is an adapter itself"
    if find_code(str(path or spec.base)):
        return "a base that names code of its own"
    return ""


def _frame_texts(folder: Path, spec: VariantSpec, tokenizer: Any) -> bool:
    """Make the saved tokenizer put the spec's BOS and ending around texts; whether it does.

    Special tokens that a text spells stay text, as they do in our engine.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    ours = TextTokenizer.of_spec(spec, tokenizer)
    head, tail = ours.frame
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = {token: backend.id_to_token(token) for token in (*head, *tail)}
    pieces = [[f"{names[token]}:0" for token in part] for part in (head, tail)]
    backend.post_processor = TemplateProcessing(
        single=[*pieces[0], "$A:0", *pieces[1]],
        pair=[*pieces[0], "$A:0", "$B:0", *pieces[1]],
        special_tokens=[(name, token) for token, name in names.items()],
    )
    backend.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for name in ("add_bos_token", "add_eos_token", "add_prefix_space"):  # say it a second time
        settings.pop(name, None)
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",  # reads tokenizer.json as it is
        "padding_side": "right",
        "truncation_side": "right",
        "split_special_tokens": True,
    }
    if not settings.get("pad_token"):
        settings["pad_token"] = backend.id_to_token(ours.pad_id)
    _write_json(path, settings)
    return _reads_alike(folder, ours, spec.lowercase)


def _reads_alike(folder: Path, ours: TextTokenizer, lowercase: bool) -> bool:
    """Whether the saved tokenizer gives the token ids of our engine."""
    from transformers import AutoTokenizer

    with quiet_transformers():
        saved = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    specials = [token for token in saved.all_special_tokens if token]
    texts = [*_PROBE, f"a {' '.join(specials)} b"]
    if lowercase:  # sentence-transformers does it
        texts = [text.lower() for text in texts]
    found = saved(texts, truncation=True, max_length=ours.max_tokens)["input_ids"]
    return [list(row) or [ours.pad_id] for row in found] == ours(texts)


def _layers_after(
    spec: VariantSpec, width: int, pooling: Mapping[str, Tensor]
) -> list[tuple[HeadLayer, dict[str, Tensor]]]:
    """Return the layers after the pooling, their weights as sentence-transformers names them."""
    found: list[tuple[HeadLayer, dict[str, Tensor]]] = []
    outer = "inner." if spec.pooling_options.whiten else ""
    for place, layer in enumerate(spec.head):
        inner, name = (
            (f"{place}.0.", "linear.") if layer.kind == "Dense" else (f"{place}.", "norm.")
        )
        prefix = f"{outer}head.{inner}"
        found.append((layer, _take(pooling, prefix, name)))
        width = layer.width
    kept = spec.dimension or width
    if spec.pooling_options.whiten:  # (x - mean) @ matrix, where x has length 1
        matrix, mean = pooling["matrix"].float(), pooling["mean"].float()
        weights = {"linear.weight": matrix.T[:kept], "linear.bias": -(mean @ matrix)[:kept]}
        found += [(_layer("Normalize", width), {}), (_layer("Dense", width, kept), weights)]
    elif kept < width:
        cut = {"linear.weight": torch.eye(kept, width)}
        found.append((_layer("Dense", width, kept, bias=False), cut))
    if spec.normalize:
        found.append((_layer("Normalize", kept), {}))
    return found


def _layer(kind: Any, reads: int, width: int | None = None, *, bias: bool = True) -> HeadLayer:
    return HeadLayer(path="", kind=kind, reads=reads, width=width or reads, bias=bias)


def _take(pooling: Mapping[str, Tensor], prefix: str, name: str) -> dict[str, Tensor]:
    return {
        name + key.removeprefix(prefix): tensor
        for key, tensor in pooling.items()
        if key.startswith(prefix)
    }


def _write_layer(folder: Path, layer: HeadLayer, weights: Mapping[str, Tensor]) -> None:
    folder.mkdir()
    if layer.kind == "Dense":
        activation = _ACTIVATIONS.get(
            layer.activation, f"torch.nn.modules.activation.{layer.activation}"
        )
        config: dict[str, Any] = {
            "in_features": layer.reads,
            "out_features": layer.width,
            "bias": layer.bias,
            "activation_function": activation,
        }
    else:
        config = {"dimension": layer.width} if layer.kind == "LayerNorm" else {}
    _write_json(folder / "config.json", config)
    if weights:
        plain = {name: tensor.float().contiguous() for name, tensor in weights.items()}
        data = safetensors.torch.save(plain, metadata={"format": "pt"})
        (folder / "model.safetensors").write_bytes(data)


def _write_modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    listed = [
        {"idx": place, "name": str(place), "path": path, "type": kind}
        for place, (path, kind) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", listed)


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
