"""Models whose authors' code is known, so that nothing of it is run.

NV-Embed (arXiv 2405.17428) names Python code as auto_map: a Mistral that attends both ways without
a window, and a pooling that we have as ``latent_attention``, whose weights are in its safetensors.
LLM2Vec (arXiv 2404.05961) says in llm2vec_config.json beside its adapter how it embeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors import safe_open
from torch import Tensor

from embedder.models.foreign.files import fetch_file, read_model_json
from embedder.pooling import PoolingOptions
from embedder.variants import VariantSpec
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify

_ATTEND, _FORWARD = "cross_attend_blocks.0.", "cross_attend_blocks.1."
_KEY_VALUE = f"{_ATTEND}fn.to_kv.weight"
_NAMES = {
    "latents": "latents",
    f"{_ATTEND}fn.to_q.weight": "attend.query.weight",
    f"{_ATTEND}fn.to_out.weight": "attend.output.weight",
    f"{_FORWARD}norm.weight": "feedforward.norm.weight",
    f"{_FORWARD}norm.bias": "feedforward.norm.bias",
    f"{_FORWARD}fn.net.0.weight": "feedforward.expand.weight",
    f"{_FORWARD}fn.net.0.bias": "feedforward.expand.bias",
    f"{_FORWARD}fn.net.2.weight": "feedforward.contract.weight",
    f"{_FORWARD}fn.net.2.bias": "feedforward.contract.bias",
}
_NORMS = ("query_norm", "context_norm")
_LAYERS = "pos_emb.weight"


def rename_latents(
    tensors: Mapping[str, Tensor], source: str, *, queries_are_latents: bool, layers: int | None
) -> dict[str, Tensor]:
    """Return the weights of a ``LatentQueryPooling`` or ``LatentKeyPooling`` under our names.

    Parameters
    ----------
    tensors : of ``PerceiverResampler`` of arXiv 2409.02727, or of NV-Embed's
        ``LatentAttentionModel``, in any dtype.
    source : their file, for messages.
    queries_are_latents : whether latents attend to what is pooled, as in arXiv 2409.02727; in
        NV-Embed it is the other way round. Their PreNorm norms what is pooled and calls the
        latents its context, in both.
    layers : L, how many rows of the layer-weight matrix are read; None where there is none.

    Raises
    ------
    ModelError : a tensor is missing, unknown, or of a shape that does not fit the others.
    """
    pooled, latents = reversed(_NORMS) if queries_are_latents else _NORMS
    names = dict(_NAMES)
    for part in ("weight", "bias"):
        names[f"{_ATTEND}norm.{part}"] = f"attend.{pooled}.{part}"
        names[f"{_ATTEND}norm_context.{part}"] = f"attend.{latents}.{part}"
    if layers is not None:
        names[_LAYERS] = "layer_weights"
    needed = {*names, _KEY_VALUE}
    for name in sorted({*needed, *tensors}):
        if name not in tensors or name not in needed:
            wrong = "lacks" if name in needed else "holds"
            hint = " (model3 and model5 have it)" if name == _LAYERS else ""
            raise ModelError(f"{source}: it {wrong} {name!r}{hint}, so it is of another variant.")
    found = {ours: tensors[theirs].float() for theirs, ours in names.items()}
    found["attend.key.weight"], found["attend.value.weight"] = (
        half.float().contiguous() for half in tensors[_KEY_VALUE].chunk(2)
    )
    if layers is not None:
        rows = len(found["layer_weights"])
        if rows < layers:
            raise ModelError(
                f"{source}: {_LAYERS!r} has {rows} rows, but the base has {layers} layers: it was "
                f"made for another base."
            )
        found["layer_weights"] = found["layer_weights"][:layers].contiguous()
    return found


def pooling_options(weights: Mapping[str, Tensor], heads: int, source: str) -> PoolingOptions:
    """Return the options of the pooling that has these weights, which are renamed already.

    Parameters
    ----------
    heads : how many attention heads share the width of the projections; no tensor tells.

    Raises
    ------
    UsageError : the width cannot be divided by ``heads``.
    """
    latents, width = weights["latents"].shape
    inner = len(weights["attend.query.weight"])
    if heads < 1 or inner % heads:
        raise UsageError(
            f"{source}: the attention is {inner} wide, which {heads} heads cannot share. Type the "
            f"number of heads it was trained with: --heads N."
        )
    return PoolingOptions(
        latents=latents,
        heads=heads,
        head_width=inner // heads,
        feedforward_multiple=weights["feedforward.contract.weight"].shape[1] // width,
    )


KEY_MAPPING = {r"^embedding_model\.": ""}
"""How its decoder's tensors are called, to what transformers' Mistral calls them."""

_ARCHITECTURE = "NVEmbedModel"
_LATENTS = "latent_attention_model."
_LONGEST = 4096
"""The longest input of its own ``encode``."""


LLM2VEC_CONFIG = "llm2vec_config.json"
_INST = {"query_prompt": "[INST] {text} [/INST]", "document_prompt": "[INST] {text} [/INST]"}
_HEADER = "<|start_header_id|>user<|end_header_id|>\n\n"
_CHAT: dict[str, dict[str, Any]] = {
    "mistralai/Mistral-7B-Instruct-v0.2": _INST,
    "meta-llama/Llama-2-7b-chat-hf": _INST,
    "meta-llama/Meta-Llama-3-8B-Instruct": {
        "query_prompt": _HEADER,
        "document_prompt": _HEADER,
        "prompt_specials": True,
        "ending": "<|eot_id|>",
    },
}
"""What the authors' code puts around texts, by the base's name."""


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


def read_llm2vec(
    name: str,
    revision: str | None,
    config: Mapping[str, Any],
    root: str,
    ending: str,
    notify: Notify,
) -> VariantSpec:
    """Return what an adapter of LLM2Vec computes: the mean of the text's tokens, both ways.

    Neither the instruction nor BOS is pooled.

    Parameters
    ----------
    config : what llm2vec_config.json holds.
    root : the base that holds the weights.
    ending : what the tokenizer puts after a text.

    Raises
    ------
    UsageError : it pools in another way than by a mean.
    """
    pooling = config.get("pooling_mode", "mean")
    if pooling != "mean":
        raise UsageError(
            f"{name}: its {LLM2VEC_CONFIG} says pooling_mode {pooling!r}; expected 'mean'. Type "
            f"the pooling: {name}:POOLING+bidirectional."
        )
    longest, shortened = config.get("max_length", 512), config.get("doc_max_length", 400)
    if type(longest) is not int or type(shortened) is not int:
        raise UsageError(f"{name}: max_length of its {LLM2VEC_CONFIG} is no whole number.")
    if shortened < longest:
        notify(
            f"{name}: its authors shorten a text of more than {shortened} tokens by words; here "
            f"it is cut at {longest} tokens, prompt included"
        )
    skips = bool(config.get("skip_instruction", True))
    return VariantSpec(
        base=name,
        revision=revision,
        pooling="mean",
        attention="bidirectional",
        max_tokens=longest,
        pool_prompt=not skips,
        pool_bos=not skips,
        **{"ending": ending, **_CHAT.get(root, {})},
    )
