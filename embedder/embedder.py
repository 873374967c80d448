"""The Embedder: a base, a pooling and an attention that turn texts into vectors."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedder.engine.backbone import Backbone, States, load_backbone
from embedder.engine.batches import CUDA_TOKENS, PaddedBatch
from embedder.engine.packing import PackedBatch
from embedder.engine.run import encode_rows, encode_texts
from embedder.engine.speed import quantize_backbone
from embedder.engine.text import TextTokenizer, cap_tokens, check_finite, count_positions
from embedder.environment import Speed, check_speed, choose_device, choose_dtype
from embedder.models.lora import copy_tensors
from embedder.models.manifest import fill_pooling, load_saved_backbone, read_manifest
from embedder.models.names import describe_model, find_saved_model, read_name
from embedder.models.published import resolve_name
from embedder.pooling.modules import last_token
from embedder.pooling.registry import (
    POOLINGS,
    Headed,
    PoolingShape,
    build_pooling,
    resolve_layers,
    without_whitening,
)
from embedder.variants import VariantSpec, format_model_name, spec_to_json
from retrieval.errors import ModelError, UsageError, check_type
from retrieval.protocols import Notify, Progress, Vectors, no_progress, silent
from retrieval.types import Fingerprint

_BATCH_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": CUDA_TOKENS, "meta": 1}


class Embedder(nn.Module):
    """Turns texts into vectors; an ``Encoder`` of the retrieval vocabulary.

    The same text gives the same vector (to 1e-5 in float32) alone or in any batch, whatever the
    padding side.

    Parameters
    ----------
    spec : what the model is.
    backbone : the spec's base, loaded and probed.
    name : what a user types to load this model again; the spec's own name by default.
    trained : whether it was trained as an embedder.
    trained_sha256 : of the trained weights, which the base's identity does not cover.
    batch_tokens : most tokens in one forward pass, padding included; a longer text goes alone.
    speed : "exact", or "fast", which puts int8 layers into ``backbone`` on CPUs where that is a
        gain, so that it can no longer be trained or saved.

    Attributes
    ----------
    is_int8 : whether linear layers compute in int8.
    width : how many numbers the pooling gives, of which ``dimension`` are kept.
    packs : whether texts are encoded without padding wherever the base allows; True. Vectors are
        the same to 1e-5 either way.
    padding_side : of texts that are padded; "right".

    Raises
    ------
    UsageError : the spec asks for a longer vector, or for other layers, than the base has; or
        there is no such speed.
    """

    def __init__(
        self,
        spec: VariantSpec,
        backbone: Backbone,
        *,
        name: str | None = None,
        trained: bool = False,
        trained_sha256: str | None = None,
        batch_tokens: int | None = None,
        speed: Speed = "exact",
        notify: Notify = silent,
    ) -> None:
        super().__init__()
        check_type("spec", spec, VariantSpec, "a VariantSpec; a name goes to Embedder.load(name)")
        self.name = name or format_model_name(spec)
        self.spec = spec = cap_tokens(spec, backbone.model.config, notify)
        self.trained = trained
        self.trained_sha256 = trained_sha256
        self.backbone = backbone
        self.padding_side: Literal["left", "right"] = "right"
        self.packs = True
        self.batch_tokens = batch_tokens or _BATCH_TOKENS[backbone.device.type]
        if self.batch_tokens < 1:
            raise UsageError(f"batch_tokens is {batch_tokens}; it must be 1 or more.")
        self.width = spec.head[-1].width if spec.head else backbone.width
        if spec.dimension is not None and spec.dimension > self.width:
            raise UsageError(f"dimension is {spec.dimension}, but {spec.base} has {self.width}.")
        reads = POOLINGS[spec.pooling].reads
        self._reads = reads(backbone.attention.is_causal, spec.pooling_options)
        self._layers = resolve_layers(spec.pooling_options, backbone.layer_count)
        shape = PoolingShape(backbone.width, len(self._layers))
        self.pooling = build_pooling(spec.pooling, shape, spec.pooling_options, spec.head)
        if backbone.head:
            headed = without_whitening(self.pooling)
            if isinstance(headed, Headed):
                headed.fill(backbone.head, spec.base)
            else:  # of a published pooling
                weights = dict(headed.named_parameters())
                copy_tensors(weights, backbone.head, Path(spec.base))
        self.pooling.to(backbone.device)
        self._tokenize = TextTokenizer.of_spec(spec, backbone.tokenizer)
        self._check_vocabulary()
        self.speed = check_speed(speed)
        self.is_int8 = speed == "fast" and quantize_backbone(backbone, notify)
        self.eval()

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str | None = None,
        batch_tokens: int | None = None,
        speed: Speed = "exact",
        notify: Notify = silent,
    ) -> Embedder:
        """Return the model called ``BASE[:POOLING+ATTENTION|:model1][,OPTION=VALUE...]``.

        The name may also be that of a built-in trained model, a folder that ``millpond train``,
        ``merge`` or ``soup`` wrote, or a published embedding model (a folder or hub id whose files
        say how it embeds), each with options such as ``,max_tokens=128``.

        Parameters
        ----------
        device : "cuda", "mps" or "cpu"; the best there is by default.
        speed : "exact", or "fast", whose vectors differ a little where it computes in int8.
        notify : receives one line for the user at each slow or notable step.

        Raises
        ------
        UnknownNameError, UsageError : the name or the device does not exist.
        DownloadError, ModelError, StorageError : the base cannot be fetched or loaded.
        AttentionProbeError : the base does not have the attention asked for.
        """
        model = read_name(model)
        saved = find_saved_model(model)
        if saved is not None:
            return cls.load_folder(
                saved.folder,
                name=saved.name,
                options=saved.options,
                device=device,
                batch_tokens=batch_tokens,
                speed=speed,
                notify=notify,
            )
        named, chosen = resolve_name(model, notify), choose_device(device)
        read = replace(named.spec, revision=named.commit or named.spec.revision)
        return cls(
            named.spec,
            load_backbone(read, chosen, choose_dtype(chosen), notify),
            name=named.published_name,
            trained=named.published_name is not None,
            batch_tokens=batch_tokens,
            speed=speed,
            notify=notify,
        )

    @classmethod
    def load_folder(
        cls,
        folder: Path | str,
        *,
        name: str | None = None,
        options: Mapping[str, Any] | None = None,
        merge: bool = True,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        batch_tokens: int | None = None,
        speed: Speed = "exact",
        notify: Notify = silent,
    ) -> Embedder:
        """Return the trained model of a MODEL_DIR; see ``load``.

        Parameters
        ----------
        name : what a user types to load this model again; the folder's full path by default.
        options : fields of VariantSpec that replace the saved ones.
        merge : whether LoRA is folded into the base's weights: faster, equal to 1e-5 in float32.

        Raises
        ------
        SourceNotFoundError : the folder holds no saved model.
        ModelError : a file is missing or damaged, or the base is not the one it was trained on.
        """
        folder, chosen = Path(folder).expanduser().resolve(), choose_device(device)
        manifest = read_manifest(folder)
        spec, backbone = load_saved_backbone(
            folder, manifest, chosen, dtype or choose_dtype(chosen), notify, merge=merge
        )
        embedder = cls(
            replace(spec, **(options or {})),
            backbone,
            name=name or str(folder),
            trained=True,
            trained_sha256=manifest.trained_sha256,
            batch_tokens=batch_tokens,
            speed=speed,
            notify=notify,
        )
        fill_pooling(folder, manifest, embedder.pooling)
        return embedder

    @classmethod
    def from_spec(
        cls,
        spec: VariantSpec,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        batch_tokens: int | None = None,
        speed: Speed = "exact",
        notify: Notify = silent,
    ) -> Embedder:
        """Return the untrained model that ``spec`` describes; see ``load``.

        A trainable pooling gets its initial weights from ``spec.pooling_options.seed``.
        """
        chosen = choose_device(device)
        backbone = load_backbone(spec, chosen, dtype or choose_dtype(chosen), notify)
        return cls(spec, backbone, batch_tokens=batch_tokens, speed=speed, notify=notify)

    def with_query_prompt(self, prompt: str, name: str) -> Embedder:
        """Return this model with another query prompt, over the same weights.

        Parameters
        ----------
        name : what a user types to load it so.
        """
        other = copy.copy(self)
        shown = prompt.lower() if self.spec.lowercase else prompt
        other.spec = replace(self.spec, query_prompt=shown)
        other.name = name
        return other

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""
        return self.spec.dimension or self.width

    @property
    def positions(self) -> int | None:
        """The longest input that the base's configuration names, in tokens; None for none."""
        return count_positions(self.backbone.model.config)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.backbone.device

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors: weights, pooling, attention, prompts, lengths."""
        return describe_model(
            self.name,
            spec_to_json(self.spec),
            weights=_join_identity(self.backbone),
            dimension=self.dimension,
            trained_sha256=self.trained_sha256,
            is_int8=self.is_int8,
        )

    def encode_queries(self, texts: Sequence[str], *, progress: Progress = no_progress) -> Vectors:
        """Return float32 (N, D), one row per text in the order given, with the query prompt.

        Raises
        ------
        UsageError : ``texts`` is one string, or holds something that is not valid text.
        ModelError : the model gave NaN or infinity.
        """
        return self._encode(texts, self.spec.query_prompt, progress)

    def encode_documents(
        self, texts: Sequence[str], *, progress: Progress = no_progress
    ) -> Vectors:
        """Return float32 (N, D), as ``encode_queries`` but with the document prompt."""
        return self._encode(texts, self.spec.document_prompt, progress)

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> Vectors:
        """Return float32 (N, D) of token ids as ``tokenize`` makes them, prompts included.

        Raises
        ------
        UsageError : as ``forward``.
        ModelError : the model gave NaN or infinity.
        """
        vectors = encode_rows(self, self.embed, rows, self.dimension)
        check_finite(vectors, rows, self._precise_name)
        return vectors

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
        """Return the token ids that the backbone will see, 1 to ``spec.max_tokens`` per text."""
        return self._tokenize(texts, prompt)

    @property
    def longest_packed(self) -> int:
        """The longest text, in tokens, that is encoded without padding; 0 where none is."""
        return self.backbone.longest_packed if self.packs else 0

    @property
    def pad_id(self) -> int:
        """The token id that fills padded rows; it is never read."""
        return self._tokenize.pad_id

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return vectors (B, D) float32 for padded ids and mask, both (B, T) int64.

        Raises
        ------
        UsageError : the spec leaves prompts out of the pooling, and ids do not show their end.
        """
        return self.embed(PaddedBatch(ids, mask))

    def embed(self, batch: PackedBatch | PaddedBatch, skipped: int | None = None) -> Tensor:
        """Return vectors (B, D) float32 of a batch; packed or padded, they are equal to 1e-5.

        Parameters
        ----------
        skipped : how many tokens at the beginning of each text the pooling leaves out.

        Raises
        ------
        UsageError : the spec leaves prompts out, and ``skipped`` does not say where they end.
        """
        if skipped is None:
            self._check_pools_prompt()
        return self.pool(self.backbone.read(batch, self.layers_read), batch, skipped or 0)

    @property
    def layers_read(self) -> tuple[int, ...]:
        """The layers whose vectors the pooling reads, from 1 on; none where it reads tokens."""
        return tuple(self._layers) if self._reads == "layers" else ()

    def pool(self, states: States, batch: PackedBatch | PaddedBatch, skipped: int = 0) -> Tensor:
        """Return vectors (B, D) float32 of the states of a batch.

        The first ``skipped`` tokens of each text are not read; a text without others gives 0.
        """
        if self._reads == "layers":
            return self._pool(states.stack(self._layers))
        tokens = states.tokens.float()
        if self._reads == "eos":
            return self._pool(batch.reduce(tokens, last_token).unsqueeze(1))
        return batch.reduce(tokens, partial(self._pool_after, skipped=skipped))

    def _pool_after(self, tokens: Tensor, real: Tensor, skipped: int) -> Tensor:
        if not skipped:
            return self._pool(tokens, real)
        read = real & (real.cumsum(dim=1) > skipped)
        some = read.any(dim=1, keepdim=True)
        return self._pool(tokens, torch.where(some, read, real)).masked_fill(~some, 0.0)

    def _pool(self, states: Tensor, real: Tensor | None = None) -> Tensor:
        """Return the final vectors of states (B, S, D); ``real`` (B, S) bool, all by default."""
        if real is None:
            real = states.new_ones(states.shape[:2], dtype=torch.bool)
        with torch.autocast(states.device.type, enabled=False):  # pooling computes in float32
            vectors: Tensor = self.pooling(states, real)[:, : self.dimension]
            return F.normalize(vectors, dim=-1) if self.spec.normalize else vectors

    def _encode(self, texts: Sequence[str], prompt: str, progress: Progress) -> Vectors:
        tokenize = partial(self.tokenize, prompt=prompt)
        skipped = 0 if self.spec.pool_prompt else self._count_prompt(prompt)
        embed = partial(self.embed, skipped=skipped)
        vectors = encode_texts(self, embed, tokenize, texts, self.dimension, progress)
        check_finite(vectors, texts, self._precise_name)
        return vectors

    def _count_prompt(self, prompt: str) -> int:
        """Return how many tokens the pooling leaves out; BOS without a prompt only if asked for.

        sentence-transformers takes a special token that ends the prompt for an ending of its own,
        and does not count it.
        """
        if not prompt:
            return 0 if self.spec.pool_bos else self._tokenize.count_prompt("")
        count = self._tokenize.count_prompt(prompt)
        ends_itself = self.spec.ending == "none" and (
            self.tokenize([""], prompt)[0][-1] in self.backbone.tokenizer.all_special_ids
        )
        return count - int(ends_itself)

    def _check_vocabulary(self) -> None:
        """Raise ModelError where a token that every text has is beyond the base's embeddings."""
        config: Any = self.backbone.model.config
        known = int(config.vocab_size)
        beyond = [i for ids in self._tokenize.frame for i in ids if i >= known]
        if beyond:
            token = self.backbone.tokenizer.convert_ids_to_tokens(beyond[0])
            raise ModelError(
                f"{self.name} puts {token!r} (token {beyond[0]}) around every text, and its "
                f"weights have {known} tokens. Name another ending with ending=TOKEN, or save the "
                f"base with resized embeddings."
            )

    def _check_pools_prompt(self) -> None:
        if not self.spec.pool_prompt:
            raise UsageError(
                f"{self.name} leaves its prompt out of the pooling (pool_prompt is false), which "
                f"token ids alone do not allow; use encode_queries and encode_documents, or a name "
                f"with pool_prompt=true. It cannot be trained."
            )

    @property
    def _precise_name(self) -> str:
        return f"{self.name} in {next(self.parameters()).dtype}"


def _join_identity(backbone: Backbone) -> str:
    """Return what names the weights of a base, and of the layers after its pooling, if any."""
    if not backbone.head:
        return backbone.identity
    digest = hashlib.sha256(backbone.identity.encode())
    for name, tensor in sorted(backbone.head.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
