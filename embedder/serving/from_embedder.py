"""An ``Embedder`` as a model to serve: texts measured uncut, token ids read back to text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from embedder.embedder import Embedder
from embedder.manifest import read_manifest
from embedder.pooling import get_pooling
from embedder.saved_name import find_saved_model
from embedder.serving.served import Role, ServedModel
from embedder.text import Frame, TextTokenizer
from retrieval.errors import UsageError

__all__ = ["serve_embedder"]

_LONGEST_TOKEN_CHARACTERS = 64
"""As in ``embedder.text``, which reads no further than this times ``max_tokens``."""


def serve_embedder(encoder: Embedder) -> ServedModel:
    """Return the embedder with what a server has to know about it."""
    tokens = _Tokens(encoder)
    spec = encoder.spec
    return ServedModel(
        encoder.fingerprint.model,
        encoder,
        tokens.count,
        spec.max_tokens,
        tokens.decode,
        _trained_dimensions(encoder),
        spec.normalize,
        {
            "pooling": spec.pooling,
            "attention": spec.attention,
            "base": spec.base,
            "dtype": str(next(encoder.parameters()).dtype).removeprefix("torch."),
            "device": str(encoder.device),
        },
    )


class _Tokens:
    """Counts and decodes with a tokenizer of its own, so that it may run beside the encoder."""

    def __init__(self, encoder: Embedder) -> None:
        spec = encoder.spec
        self._tokenizer: Any = copy.deepcopy(encoder.backbone.tokenizer)
        self._limit = spec.max_tokens
        self._tokenize = TextTokenizer.of_spec(
            spec,
            self._tokenizer,
            max_tokens=spec.max_tokens + 1,  # one more shows that a text does not fit
        )
        template = Frame.parse(get_pooling(spec.pooling).template)
        self._frames = {
            "query": Frame.parse(spec.query_prompt).inside(template),
            "document": Frame.parse(spec.document_prompt).inside(template),
        }

    def count(self, texts: Sequence[str], role: Role) -> list[int]:
        """Return how many tokens the model sees of each text, or more than it can see."""
        rows = self._tokenize(texts, self._frames[role])
        longest = self._limit * _LONGEST_TOKEN_CHARACTERS
        return [
            self._limit + 1 if len(text) > longest else len(row)
            for text, row in zip(texts, rows, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out.

        Raises
        ------
        UsageError : an id that the model's vocabulary does not have.
        """
        size = len(self._tokenizer)
        wrong = next((one for one in ids if not 0 <= one < size), None)
        if wrong is not None:
            raise UsageError(
                f"Token {wrong} is not in the model's vocabulary of {size} tokens. Send the tokens "
                f"of this model's own tokenizer, or send text."
            )
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def _trained_dimensions(encoder: Embedder) -> tuple[int, ...]:
    """Return the Matryoshka lengths that a saved model was trained with, shortest first."""
    saved = find_saved_model(encoder.fingerprint.model)
    if saved is None:
        return ()
    config = read_manifest(saved.folder).record.get("config")
    loss = config.get("loss") if isinstance(config, dict) else None
    trained = loss.get("matryoshka_dimensions") if isinstance(loss, dict) else None
    return tuple(sorted(length for length in trained or () if length < encoder.dimension))
