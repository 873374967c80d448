"""NV-Embed (arXiv 2405.17428): its latent attention from its safetensors, without its code.

Its folder names Python code as auto_map. That code is known, so nothing of it is run: a Mistral
that attends both ways without a window, and a pooling that we have as ``latent_attention``.
"""

from __future__ import annotations

from typing import Any

from safetensors import safe_open
from torch import Tensor

from embedder.models.foreign.files import fetch_file, read_model_json
from embedder.models.foreign.latents import rename_latents
from embedder.pooling import PoolingOptions
from embedder.variants import VariantSpec
from retrieval.errors import ModelError

__all__ = ["KEY_MAPPING", "decoder_config", "read_latents", "read_nv_embed", "spec_of"]

KEY_MAPPING = {r"^embedding_model\.": ""}
"""How its decoder's tensors are called, to what transformers' Mistral calls them."""

_ARCHITECTURE = "NVEmbedModel"
_LATENTS = "latent_attention_model."
_LONGEST = 4096
"""The longest input of its own ``encode``."""


def read_nv_embed(path: str, revision: str | None) -> dict[str, Any] | None:
    """Return the configuration of a folder or hub id that is an NV-Embed, None for another."""
    config = read_model_json(path, "config.json", revision)
    if not isinstance(config, dict) or config.get("architectures") != [_ARCHITECTURE]:
        return None
    for name in ("text_config", "latent_attention_config"):
        if not isinstance(config.get(name), dict):
            raise ModelError(f"{path}: its config.json has no {name}, as an {_ARCHITECTURE} has.")
    return config


def spec_of(path: str, revision: str | None, config: dict[str, Any], base: str) -> VariantSpec:
    """Return what it computes; instructions are left out of the pooling, as its code does."""
    latents = config["latent_attention_config"]
    found = read_model_json(path, "sentence_bert_config.json", revision)
    settings = found if isinstance(found, dict) else {}
    longest = settings.get("max_seq_length", _LONGEST)
    sizes = [latents.get(f"num_{name}") for name in ("latents_value", "cross_heads")]
    sizes.append(latents.get("cross_dim_head"))
    if not all(type(size) is int for size in [*sizes, longest]):
        raise ModelError(f"{base}: the sizes of its latent_attention_config are no whole numbers.")
    return VariantSpec(
        base=base,
        revision=revision,
        pooling="latent_attention",
        attention="bidirectional",
        max_tokens=longest,
        pool_prompt=not config.get("is_mask_instruction", True),
        pooling_options=PoolingOptions(
            latents=sizes[0], heads=sizes[1], head_width=sizes[2], feedforward_multiple=4
        ),
    )


def decoder_config(config: dict[str, Any]) -> Any:
    """Return the configuration of its decoder as one of transformers' own Mistral."""
    from transformers import MistralConfig

    names = ("auto_map", "architectures", "model_type", "_name_or_path", "_attn_implementation")
    text = {name: value for name, value in config["text_config"].items() if name not in names}
    return MistralConfig(**text | {"sliding_window": None})


def read_latents(path: str, revision: str | None, base: str) -> dict[str, Tensor]:
    """Return the weights of its pooling under our names, float32.

    Raises
    ------
    ModelError : there are no safetensors, or a tensor is missing or unknown.
    """
    index = read_model_json(path, "model.safetensors.index.json", revision)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    names = {"model.safetensors"}
    if isinstance(listed, dict):
        names = {str(file) for name, file in listed.items() if name.startswith(_LATENTS)}
    found: dict[str, Tensor] = {}
    for name in sorted(names):
        where = fetch_file(path, name, revision)
        if where is None:
            raise ModelError(f"{base} has no {name}; safetensors alone are read. Copy it again.")
        with safe_open(where, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - it is no dictionary
                if key.startswith(_LATENTS):
                    found[key.removeprefix(_LATENTS)] = file.get_tensor(key)
    return rename_latents(found, base, queries_are_latents=False, layers=None)
