"""Models of sentence-transformers that a suspect can change."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from embedder.conform.precision import PRECISIONS
from embedder.conform.recipe import LocalModel, Recipe, build_rows, count_prompt
from embedder.models.sentence_transformers import SentenceTransformersEncoder
from retrieval.errors import ModelError
from retrieval.protocols import Vectors

__all__ = ["LibraryModel"]

_MODES = {
    "mean": "mean",
    "eos": "lasttoken",
    "cls": "cls",
    "max": "max",
    "weighted_mean": "weightedmean",
}
"""What sentence-transformers calls our poolings."""


class LibraryModel(LocalModel):
    """A SentenceTransformer of a Transformer and a Pooling, with whatever follows them."""

    def __init__(self, encoder: SentenceTransformersEncoder) -> None:
        self._encoder = encoder
        self._model: Any = encoder.model
        self._copy: tuple[str, Any] | None = None
        self._pooling = self._model[1]
        config = self._model[0].auto_model.config
        self.name = encoder.name
        self.tokenizer = self._model.tokenizer
        positions = int(getattr(config, "max_position_embeddings", 0) or encoder.max_tokens)
        if config.model_type in ("roberta", "xlm-roberta", "mpnet", "camembert"):
            positions -= 2  # they count from the padding's id + 1
        self.max_tokens = min(encoder.max_tokens, positions)
        self.most_tokens = max(positions, self.max_tokens)
        names = {mode: name for name, mode in _MODES.items()}
        self.own_pooling = names.get(self._pooling.pooling_mode, str(self._pooling.pooling_mode))
        self.poolings = [name for name in _MODES if name != self.own_pooling]
        self.attentions = ()
        self.precisions = list(PRECISIONS)
        self.chat = None
        head, ending = self._around()
        self.recipes = {
            side: Recipe(
                prefix=encoder.prompt(side),
                head=head,
                ending=ending,
                max_tokens=self.max_tokens,
                lowercase=bool(getattr(self._model[0], "do_lower_case", False)),
                reads_specials=True,
                pools_prompt=self._pooling.include_prompt,
            )
            for side in ("query", "document")
        }

    @staticmethod
    def fits(encoder: SentenceTransformersEncoder) -> bool:
        """Return whether the model begins as expected: a Transformer of texts, then a Pooling."""
        parts: list[Any] = list(encoder.model)
        names = [type(part).__name__ for part in parts[:2]]
        fast = hasattr(encoder.tokenizer, "backend_tokenizer")
        return names == ["Transformer", "Pooling"] and fast

    def encode(self, texts: Sequence[str], side: str) -> Vectors:
        """Return float32 (N, D) as the model itself gives them."""
        if side == "query":
            return self._encoder.encode_queries(texts)
        return self._encoder.encode_documents(texts)

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], recipe: Recipe) -> Vectors:
        """Return float32 (N, D) in another way."""
        model = self._change(recipe.precision)
        pooling = self._pooling
        if recipe.pooling != "own" or recipe.pools_prompt != pooling.include_prompt:
            mode = _MODES.get(recipe.pooling, pooling.pooling_mode)
            pooling = type(pooling)(
                pooling.embedding_dimension, mode, include_prompt=recipe.pools_prompt
            )
        prompt = count_prompt(self.tokenizer, recipe) if recipe.prefix else 0
        found = []
        for row in build_rows(self.tokenizer, texts, recipe):
            ids = torch.tensor([row], device=self._model.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if prompt and not recipe.pools_prompt:
                features["prompt_length"] = torch.tensor([prompt], device=ids.device)
            for part in (model[0], pooling, *list(model)[2:]):
                features = part(features)
            found.append(features["sentence_embedding"])
        vectors: Vectors = torch.cat(found).float().cpu().numpy()
        return vectors

    def _change(self, precision: str) -> Any:
        if precision == "own":
            return self._model
        if self._copy is None or self._copy[0] != precision:
            self._copy = None  # no two copies of the weights at a time
            changed = copy.deepcopy(self._model)
            PRECISIONS[precision](changed[0])
            self._copy = precision, changed
        return self._copy[1]

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the token ids that the tokenizer puts before and after a text."""
        row = list(self.tokenizer("a")["input_ids"])
        plain = build_rows(self.tokenizer, ["a"], Recipe())[0]
        for start in range(len(row) - len(plain) + 1):
            if row[start : start + len(plain)] == plain:
                return tuple(row[:start]), tuple(row[start + len(plain) :])
        raise ModelError(f"{self.name}: its tokenizer does not keep a text apart.")
