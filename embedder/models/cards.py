"""Prompts that well-known models were trained with and that only their cards name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from embedder.models.names import write_value
from retrieval.protocols import Notify

_WEB = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCTED = (f"Instruct: {_WEB}\nQuery: ", "")
_SEARCH = ("Represent this sentence for searching relevant passages: ", "")

_CARDS: Mapping[str, tuple[str, str]] = {
    r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised|-ko)?": ("query: ", "passage: "),
    r"multilingual-e5-large-instruct|e5-mistral-7b-instruct": _INSTRUCTED,
    r"SFR-Embedding-(Mistral|2_R)|Linq-Embed-Mistral": _INSTRUCTED,
    r"bge-(small|base|large)-en(-v1\.5)?": _SEARCH,
    r"bge-(small|base|large)-zh(-v1\.5)?": ("为这个句子生成表示以用于检索相关文章：", ""),  # noqa: RUF001
    r"UAE-Large-V1|mxbai-embed-(large|xsmall|2d-large)-v1": _SEARCH,
    r"snowflake-arctic-embed-(xs|s|m|m-long|l|m-v1\.5)|mdbr-leaf-ir": _SEARCH,
    r"nomic-embed-text-v(1|1\.5|2-moe|1-unsupervised|1-ablated)|modernbert-embed-base": (
        "search_query: ",
        "search_document: ",
    ),
    r"ruri-(small|base|large)(-v2)?": ("クエリ: ", "文章: "),
    r"ruri-v3-\d+m": ("検索クエリ: ", "検索文書: "),
}
"""The last part of names, as a pattern, and what stands before queries and before documents."""


def say_which_prompts(
    model: str, used: tuple[str, str], named: Mapping[str, str], notify: Notify
) -> None:
    """Tell that a model is used without prompts that it was trained with.

    Parameters
    ----------
    model : its hub id or folder.
    used : the prompts of queries and documents that its files give.
    named : all prompts of its files.
    """
    if any(used):
        return
    if others := ", ".join(name for name, prompt in named.items() if prompt):
        notify(
            f"Warning: {model} has no prompt named query or document, so none is used; it has "
            f"{others}. Set one with the option query_prompt."
        )
        return
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1].partition("@")[0]
    for pattern, prompts in _CARDS.items():
        if re.fullmatch(pattern, last, re.IGNORECASE):
            sides = ("query_prompt", "queries"), ("document_prompt", "documents")
            pairs = [(*side, prompt) for side, prompt in zip(sides, prompts, strict=True) if prompt]
            told = " and ".join(f"{prompt!r} before {side}" for _, side, prompt in pairs)
            options = [f"{option}={write_value(prompt)}" for option, _, prompt in pairs]
            typed = shlex.quote(",".join([model, *options]))
            notify(
                f"Warning: {model} was trained with {told}, as its card says; its files do not, so "
                f"no prompt is used. For its authors' vectors: --model {typed}"
            )
