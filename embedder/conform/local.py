"""Embedders that a suspect can change: another pooling, attention or precision of one backbone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from embedder.attention import ATTENTIONS, get_attention
from embedder.conform.library import LibraryModel
from embedder.conform.precision import PRECISIONS
from embedder.conform.recipe import LocalModel, Recipe, build_rows, count_prompt
from embedder.embedder import Embedder
from embedder.engine.backbone import Backbone
from embedder.engine.text import PromptTemplate, TextTokenizer
from embedder.models.sentence_transformers import SentenceTransformersEncoder
from embedder.pooling import POOLINGS, get_pooling
from retrieval.errors import AttentionProbeError, ModelError, UsageError
from retrieval.protocols import Encoder, Vectors

__all__ = ["EmbedderModel", "LoadedModel", "take_apart"]

_TOKEN_POOLINGS = ("mean", "eos", "cls", "max", "weighted_mean")


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
        self._embedder = embedder
        self._backbone = embedder.backbone
        self._changed: dict[str, Embedder] = {}
        self._copy: tuple[tuple[str, str, str], Embedder] | None = None
        spec = embedder.spec
        self.name = embedder.name
        self.tokenizer = embedder.backbone.tokenizer
        self.max_tokens = TextTokenizer.of_spec(spec, self.tokenizer).max_tokens
        config: Any = embedder.backbone.model.config
        self.most_tokens = int(getattr(config, "max_position_embeddings", 0) or self.max_tokens)
        self.own_pooling = spec.pooling
        self.poolings = [
            name for name in _TOKEN_POOLINGS if name in POOLINGS and name != spec.pooling
        ]
        self.attentions = [name for name in ATTENTIONS if name != embedder.backbone.attention.name]
        self.precisions = [] if embedder.is_int8 else list(PRECISIONS)
        head, ending = self._around(spec.chat_template)
        template = PromptTemplate.parse(get_pooling(spec.pooling).template)
        prompts = {"query": spec.query_prompt, "document": spec.document_prompt}
        self.recipes = {
            side: self._recipe(PromptTemplate.parse(prompt).inside(template), head, ending)
            for side, prompt in prompts.items()
        }
        self.chat = None
        if not spec.chat_template and self.tokenizer.chat_template:
            self.chat = self._around_chat()

    def encode(self, texts: Sequence[str], side: str) -> Vectors:
        """Return float32 (N, D) as the model itself gives them."""
        if side == "query":
            return self._embedder.encode_queries(texts)
        return self._embedder.encode_documents(texts)

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
        return _pool_after(embedder, rows, count_prompt(self.tokenizer, recipe))

    def _recipe(
        self, template: PromptTemplate, head: tuple[int, ...], ending: tuple[int, ...]
    ) -> Recipe:
        return Recipe(
            prefix=template.prefix,
            suffix=template.suffix,
            head=head,
            ending=ending,
            max_tokens=self.max_tokens,
            lowercase=self._embedder.spec.lowercase,
            prompt_specials=self._embedder.spec.prompt_specials,
            pools_prompt=self._embedder.spec.pool_prompt,
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
            chosen = get_attention(attention)
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


@torch.inference_mode()
def _pool_after(embedder: Embedder, rows: Sequence[Sequence[int]], skipped: int) -> Vectors:
    """Return float32 (N, D) of rows whose first tokens the pooling leaves out."""
    found = []
    for row in rows:
        ids = torch.tensor([row], device=embedder.device)
        states = embedder.backbone.read(ids, torch.ones_like(ids), embedder.layers_read)
        found.append(embedder.pool(states, torch.ones_like(ids, dtype=torch.bool), skipped))
    vectors: Vectors = torch.cat(found).float().cpu().numpy()
    return vectors


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
