"""What of a model stands around a text, as a tokenizer's file and a prompt before the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedder.embedder import Embedder
from embedder.engine.text import TextTokenizer
from retrieval.errors import UsageError


@dataclass(frozen=True)
class Framing:
    """What stands around a text.

    Attributes
    ----------
    prompts : what a client puts before a text, as query_prompt and document_prompt.
    head, tail : token ids before the prompt, and after the text; the tail is never cut off.
    pad_id : fills rows of a batch.
    """

    prompts: dict[str, str]
    head: tuple[int, ...]
    tail: tuple[int, ...]
    pad_id: int


def refuse(embedder: Embedder, what: str, advice: str) -> UsageError:
    """Return the error for what an exported model cannot say."""
    return UsageError(f"{embedder.name} cannot be exported so: {what}. {advice}")


def frame_texts(embedder: Embedder) -> Framing:
    """Return what stands around this model's texts.

    Raises
    ------
    UsageError : a tokenizer's file and a prompt cannot say it.
    """
    spec = embedder.spec
    if not spec.pool_prompt:
        raise refuse(
            embedder,
            "its pooling leaves the prompt out, and token ids do not say where that ends",
            "Name it with pool_prompt=true, if other vectors will do.",
        )
    if spec.prompt_specials:
        raise refuse(
            embedder,
            "its prompts hold special tokens that its texts may not",
            "Name it with query_prompt and document_prompt without them, if other vectors will do.",
        )
    tokenizer = embedder.backbone.tokenizer
    ours = TextTokenizer.of_spec(spec, tokenizer)
    query, document = ours.surround(spec.query_prompt), ours.surround(spec.document_prompt)
    if query.suffix != document.suffix:
        raise refuse(
            embedder,
            f"its prompts end differently after the text ({query.suffix!r}, {document.suffix!r})",
            "Name it with prompts that end before the text or alike.",
        )
    prompts = {"query_prompt": query.prefix, "document_prompt": document.prefix}
    if spec.lowercase and any(text != text.lower() for text in prompts.values()):
        raise refuse(
            embedder,
            "its texts are read in lower case and its prompts are not",
            "Name it with prompts in lower case.",
        )
    head, tail = ours.frame
    suffix = ids_of(tokenizer.backend_tokenizer, query.suffix)
    return Framing(prompts, tuple(head), (*suffix, *tail), ours.pad_id)


def ids_of(backend: Any, text: str) -> list[int]:
    """Return the ids of a text in which no special token is read."""
    backend.encode_special_tokens = True
    return list(backend.encode(text, add_special_tokens=False).ids)
