"""Loaded models that a suspect can change: another pooling, attention or precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from embedder.conform.recipe import LocalModel, Recipe, build_rows, count_prompt
from embedder.embedder import Embedder
from embedder.engine.backbone import Backbone
from embedder.engine.run import encode_rows
from embedder.engine.text import TextTokenizer, find_around
from embedder.models.sentence_transformers.encoder import (
    POOLING_MODES,
    SentenceTransformersEncoder,
)
from embedder.variants import ATTENTIONS
from retrieval.errors import AttentionProbeError, ModelError, UsageError
from retrieval.protocols import Encoder, Vectors

_BLOCK = 32


def _round_blocks(weights: Tensor, levels: int) -> Tensor:
    """Return weights rounded in blocks of 32 with one scale each, as GGUF files hold them."""
    if weights.dim() != 2 or weights.shape[1] % _BLOCK:
        return weights
    blocks = weights.reshape(-1, _BLOCK)
    scale = (blocks.abs().amax(dim=1, keepdim=True) / levels).clamp(min=1e-30)
    return ((blocks / scale).round() * scale).reshape(weights.shape)


def _round_weights(levels: int) -> Callable[[nn.Module], nn.Module]:
    def change(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(_round_blocks(parameter, levels))
        return model

    return change


PRECISIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float16": lambda model: model.to(torch.float16),
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "8-bit weights": _round_weights(127),
    "4-bit weights": _round_weights(7),
}


class LoadedModel:
    """A model that runs here, seen from outside as an endpoint is.

    Attributes
    ----------
    name : what was typed.
    """

    def __init__(self, encoder: Encoder, side: str) -> None:
        self.name = encoder.fingerprint.model
        self._encode = encoder.encode_queries if side == "query" else encoder.encode_documents

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D) of texts encoded together."""
        return self._encode(texts)


class EmbedderModel(LocalModel):
    """An ``Embedder`` whose parts can be changed; see ``LocalModel``."""

    def __init__(self, embedder: Embedder) -> None:
        self.encoder = embedder
        self._embedder = embedder
        self._backbone = embedder.backbone
        self._changed: dict[str, Embedder] = {}
        self._copy: tuple[tuple[str, str, str], Embedder] | None = None
        spec = embedder.spec
        self.name = embedder.name
        self.tokenizer = embedder.backbone.tokenizer
        self.max_tokens = spec.max_tokens
        config: Any = embedder.backbone.model.config
        self.most_tokens = int(getattr(config, "max_position_embeddings", 0) or self.max_tokens)
        self.own_pooling = spec.pooling
        self.poolings = [name for name in POOLING_MODES if name != spec.pooling]
        self.attentions = [name for name in ATTENTIONS if name != embedder.backbone.attention.name]
        self.precisions = [] if embedder.is_int8 else list(PRECISIONS)
        prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self.recipes = {side: self._recipe(prompt) for side, prompt in prompts.items()}
        self.chat = None
        if not spec.chat_template and self.tokenizer.chat_template:
            self.chat = self._around_chat()

    def vectors(self, texts: Sequence[str], recipe: Recipe) -> Vectors:
        """Return float32 (N, D) in another way.

        Raises
        ------
        ModelError : the weights cannot be used with the recipe's attention.
        """
        rows = build_rows(self.tokenizer, texts, recipe)
        embedder = self._change(recipe)
        if recipe.pools_prompt or not recipe.prefix:
            return embedder.encode_tokens(rows)
        embed = partial(embedder.embed, skipped=count_prompt(self.tokenizer, recipe))
        return encode_rows(embedder, embed, rows, embedder.dimension)

    def _recipe(self, prompt: str) -> Recipe:
        spec = self._embedder.spec
        around = TextTokenizer.of_spec(spec, self.tokenizer).surround(prompt)
        head, ending = self._around(spec.chat_template)
        return Recipe(
            prefix=around.prefix,
            suffix=around.suffix,
            head=head,
            ending=ending,
            max_tokens=self.max_tokens,
            lowercase=spec.lowercase,
            prompt_specials=spec.prompt_specials,
            pools_prompt=spec.pool_prompt,
        )

    def _around(self, chat_template: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the token ids that the tokenizer puts before and after a text."""
        spec = replace(self._embedder.spec, chat_template=chat_template)
        head, ending = TextTokenizer.of_spec(spec, self.tokenizer).frame
        return tuple(head), tuple(ending)

    def _around_chat(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        try:
            return self._around(True)
        except (ModelError, ValueError, TypeError):  # the template wants more than one user's text
            return None

    def _change(self, recipe: Recipe) -> Embedder:
        """Return the embedder with the parts that the recipe names, of full width."""
        if recipe.attention == recipe.precision == "own":
            if recipe.pooling not in self._changed:
                self._changed[recipe.pooling] = self._build(recipe)
            return self._changed[recipe.pooling]
        key = (recipe.pooling, recipe.attention, recipe.precision)
        if self._copy is None or self._copy[0] != key:
            self._copy = None  # no two copies of the weights at a time
            self._copy = key, self._build(recipe)
        return self._copy[1]

    def _build(self, recipe: Recipe) -> Embedder:
        own = self._embedder
        spec = replace(own.spec, dimension=None, normalize=False, pool_prompt=True)
        backbone = self._rebuild(recipe.attention, recipe.precision)
        if recipe.attention != "own":
            spec = replace(spec, attention=recipe.attention)
        if recipe.pooling != "own":
            plain = type(spec.pooling_options)(whiten=spec.pooling_options.whiten)
            spec = replace(spec, pooling=recipe.pooling, pooling_options=plain)
        changed = Embedder(spec, backbone, name=own.name, batch_tokens=own.batch_tokens)
        # What follows a pooling, such as whitening, follows another one too.
        weights = own.pooling.state_dict()
        fitting = {k: v for k, v in weights.items() if k in changed.pooling.state_dict()}
        changed.pooling.load_state_dict(fitting, strict=False)
        return changed

    def _rebuild(self, attention: str, precision: str) -> Backbone:
        """Return the backbone with another attention, which is probed, or precision."""
        if attention == precision == "own":
            return self._backbone
        model = copy.deepcopy(self._backbone.model)
        chosen = self._backbone.attention
        if attention != "own":
            chosen = ATTENTIONS[attention]
            for module in model.modules():
                holders: list[Any] = [module, getattr(module, "config", None)]
                for holder in holders:
                    if hasattr(holder, "is_causal"):
                        holder.is_causal = chosen.is_causal
        if precision != "own":
            model = PRECISIONS[precision](model)
        try:
            return Backbone(
                model,
                self.tokenizer,
                chosen,
                self._backbone.identity,
                self._embedder.spec.base,
                self._backbone.head,
            )
        except AttentionProbeError as error:
            raise ModelError(f"{self.name} has no {attention} attention: {error}") from error


class LibraryModel(LocalModel):
    """A SentenceTransformer of a Transformer and a Pooling, with whatever follows them."""

    def __init__(self, encoder: SentenceTransformersEncoder) -> None:
        self.encoder = encoder
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
        names = {mode: name for name, mode in POOLING_MODES.items()}
        self.own_pooling = names.get(self._pooling.pooling_mode, str(self._pooling.pooling_mode))
        self.poolings = [name for name in POOLING_MODES if name != self.own_pooling]
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

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str], recipe: Recipe) -> Vectors:
        """Return float32 (N, D) in another way."""
        model = self._change(recipe.precision)
        pooling = self._pooling
        if recipe.pooling != "own" or recipe.pools_prompt != pooling.include_prompt:
            mode = POOLING_MODES.get(recipe.pooling, pooling.pooling_mode)
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
        around = find_around(row, build_rows(self.tokenizer, ["a"], Recipe())[0])
        if around is None:
            raise ModelError(f"{self.name}: its tokenizer does not keep a text apart.")
        return tuple(around[0]), tuple(around[1])


def take_apart(encoder: Encoder) -> LocalModel:
    """Return a loaded model in parts that suspects can change.

    Raises
    ------
    UsageError : it is of a kind that cannot be taken apart.
    """
    if isinstance(encoder, Embedder):
        return EmbedderModel(encoder)
    if isinstance(encoder, SentenceTransformersEncoder) and LibraryModel.fits(encoder):
        return LibraryModel(encoder)
    raise UsageError(
        f"{encoder.fingerprint.model} cannot be taken apart to find out why vectors differ. Name "
        f"a model of millpond first, and this one with --against."
    )
