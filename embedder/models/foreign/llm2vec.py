"""How LLM2Vec (arXiv 2404.05961) embeds, from llm2vec_config.json beside its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedder.variants import VariantSpec
from retrieval.errors import UsageError
from retrieval.protocols import Notify

__all__ = ["LLM2VEC_CONFIG", "read_llm2vec"]

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
