"""The decoder, from token ids to states."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from embedder.attention import Attention, attends_both_ways, get_attention, probe_attention
from embedder.engine.packing import PackedBatch, packed_states, use_packed_attention
from embedder.engine.probe import choose_packing
from embedder.environment import first_line, quiet_transformers
from embedder.models.foreign import files, nv_embed
from embedder.models.foreign.adapters import merge_adapters
from embedder.models.foreign.files import refuse_code
from embedder.models.locate import LocatedBase, locate_base
from embedder.models.names import is_saved_model
from embedder.pooling.head import head_tensors
from embedder.variants import VariantSpec
from retrieval.errors import MillpondError, ModelError, UsageError
from retrieval.forks import check_fork
from retrieval.protocols import Notify

__all__ = ["Backbone", "States", "find_commit", "load_backbone", "name_encoder"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class States:
    """What poolings read of one forward pass.

    Attributes
    ----------
    tokens : of the last layer after the final norm, (B, T, D) or packed (total, D), in the
        model's dtype.
    layers : by layer, from 1 on, a vector per text, (B, D) float32.
    """

    tokens: Tensor
    layers: Mapping[int, Tensor]

    def stack(self, layers: Sequence[int]) -> Tensor:
        """Return the vectors of these layers, (B, len(layers), D) float32."""
        return torch.stack([self.layers[layer] for layer in layers], dim=1)


class Backbone(nn.Module):
    """A loaded decoder whose attention was probed.

    Parameters
    ----------
    model : what ``AutoModel`` loads: ids and mask to ``last_hidden_state``.
    tokenizer : the base's own.
    attention : the pattern that ``model.config.is_causal`` was set for.
    identity : of the weights: a SHA-256, or a hub id's commit.
    described : its name in messages.
    head : weights of the layers that a published model has after its pooling, by name.

    Attributes
    ----------
    packing : how texts go through the model packed.
    longest_packed : the longest text, in tokens, that may be packed; 0 for none.

    Raises
    ------
    AttentionProbeError : the model does not have that attention.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        attention: Attention,
        identity: str,
        described: str,
        head: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.head = dict(head or {})
        self.model = model
        self.tokenizer = tokenizer
        self.attention = attention
        self.identity = identity
        config: Any = model.config
        self.width = int(config.hidden_size)
        self.layer_count = int(config.num_hidden_layers)
        was_training = model.training
        model.eval()
        use_packed_attention(model)
        probe_attention(
            self.token_states,
            attention,
            vocabulary=int(config.vocab_size),
            device=self.device,
            described=described,
        )
        self.packing = choose_packing(model, self.token_states, attention.is_causal, self.blocks)
        self.longest_packed = self.packing.longest
        model.train(was_training)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def token_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the last layer's states (B, T, D), after the final norm, in the model's dtype.

        ``ids`` and ``mask`` are (B, T) int64, 1 in the mask at real tokens, padding on either
        side.
        """
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        )
        states: Tensor = out.last_hidden_state
        return states

    def packed_states(self, batch: PackedBatch) -> Tensor:
        """Return the states (total, D) of packed texts, as ``token_states`` does."""
        return packed_states(self.model, batch, self.attention.is_causal, self.packing.kernel)[0]

    def layer_states(self, ids: Tensor, mask: Tensor, layers: Sequence[int]) -> Tensor:
        """Return one vector per layer and text, (B, len(layers), D) float32.

        ``layers`` counts from 1 (the first decoder layer's output) to L (after the final norm).
        Each layer is reduced by ``attention.layer_summary`` as soon as it is computed, so no more
        than one layer's token states are held.
        """
        return self.read(ids, mask, layers).stack(layers)

    def read(self, ids: Tensor, mask: Tensor, layers: Collection[int]) -> States:
        """Return the last layer's token states (B, T, D), and a vector per layer asked for."""
        real = mask.bool()
        return self._read(
            lambda: self.token_states(ids, mask),
            lambda states: self.attention.layer_summary(states, real),
            layers,
        )

    def read_packed(self, batch: PackedBatch, layers: Collection[int]) -> States:
        """Return the same for packed texts, tokens (total, D)."""
        return self._read(
            lambda: self.packed_states(batch),
            lambda states: batch.reduce(states.flatten(0, -2), self.attention.layer_summary),
            layers,
        )

    def _read(
        self,
        run: Callable[[], Tensor],
        summary: Callable[[Tensor], Tensor],
        layers: Collection[int],
    ) -> States:
        """Return the states that ``run`` gives, and summaries of layers on the way.

        A hook sees what any thread computes meanwhile; those of others are theirs.
        """
        kept: dict[int, Tensor] = {}
        own = threading.get_ident()

        def reduce(states: Tensor) -> Tensor:
            with torch.autocast(states.device.type, enabled=False):  # a mean in bf16 loses digits
                return summary(states.float())

        def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if threading.get_ident() != own:
                    return
                kept[layer] = reduce(output[0] if isinstance(output, tuple) else output)

            return hook

        inner = {layer for layer in layers if layer < self.layer_count}
        hooks = [
            block.register_forward_hook(keep(layer))
            for layer, block in enumerate(self.blocks() if inner else (), start=1)
            if layer in inner
        ]
        try:
            last = run()
        finally:
            for hook in hooks:
                hook.remove()
        if self.layer_count in layers:
            kept[self.layer_count] = reduce(last)
        return States(last, kept)

    def blocks(self) -> nn.ModuleList:
        """The decoder layers: the one module list as long as the model is deep."""
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.layer_count:
                return module
        raise ModelError(
            f"{type(self.model).__name__} shows no list of {self.layer_count} decoder layers, "
            f"which a pooling over layers reads. Use a pooling over tokens, such as mean."
        )


def load_backbone(
    spec: VariantSpec, device: torch.device, dtype: torch.dtype, notify: Notify
) -> Backbone:
    """Return the spec's base on ``device`` in ``dtype``, in evaluation mode.

    Weights are read from safetensors only, and no code from a model folder is run.

    Raises
    ------
    UnknownNameError, UsageError : no such base, or more layers asked for than it has.
    DownloadError, ModelError, StorageError : it cannot be fetched or loaded.
    AttentionProbeError : it does not have the attention asked for.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    check_fork("torch", torch.get_num_threads())
    attention = get_attention(spec.attention)
    located = locate_base(spec.base, spec.revision, notify, spec.adapter_base)
    with quiet_transformers():
        try:
            # One commit for every file: a branch can move between two of them.
            if located.identity:
                revision = located.revision
            else:
                revision = find_commit(located.path, located.revision, notify)
            where = {"revision": revision, "trust_remote_code": False}
            known = nv_embed.read_nv_embed(located.path, revision)
            if known:
                config, names = nv_embed.decoder_config(known), nv_embed.KEY_MAPPING
            else:
                refuse_code(spec.base, located.path, revision)
                config, names = AutoConfig.from_pretrained(located.path, **where), None
            _prepare(config, spec, attention)
            words, version = located.tokenizer if located.adapters else (located.path, revision)
            where_words = where | {"revision": version} | ({"config": config} if known else {})
            tokenizer = AutoTokenizer.from_pretrained(words, **where_words)
            tokenizer("a")  # what is wrong in its files may show only in use
            model = AutoModel.from_pretrained(
                located.path,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                key_mapping=names,
                **where,
            )
            model = merge_adapters(model, located.adapters, spec.base_layers)
            own = (spec.base, spec.revision) if located.adapters else (located.path, revision)
            head = _read_head(spec, *own)
            if known and spec.pooling == "latent_attention":
                head = nv_embed.read_latents(located.path, revision, spec.base)
        except MillpondError:
            raise
        except Exception as error:  # every library below raises its own kinds
            raise _load_error(spec.base, located, error) from error
    identity = located.identity or str(revision)
    return Backbone(model.to(device).eval(), tokenizer, attention, identity, spec.base, head)


def _read_head(spec: VariantSpec, path: str, revision: str | None) -> dict[str, Tensor]:
    """Return the weights of the layers after a published model's pooling.

    A MODEL_DIR that holds a whole base keeps them with the weights of its pooling.
    """
    from transformers.utils.hub import cached_file

    weighty = [layer for layer in spec.head if layer.kind != "Normalize" and layer.path]
    if is_saved_model(path) or not weighty:
        return {}
    read = {}
    for layer in weighty:
        name = f"{layer.path}/model.safetensors"
        found = cached_file(
            path, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if found is None:
            raise ModelError(
                f"The base {spec.base!r} has no {name}, the weights of a layer after its pooling. "
                f"Pickle files are not read, since they can run code; type --model st:{spec.base}."
            )
        read[layer.path] = safetensors.torch.load_file(str(found))
    return head_tensors(spec.head, read)


def find_commit(base: str, revision: str | None, notify: Notify) -> str:
    """Return the commit that a hub id's revision names now, or named when last fetched.

    Raises
    ------
    ModelError : the hub has no such model or revision, or cannot be reached.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    notify(f"Asking the model hub for {base} (fetched once, then read from its cache)")
    try:
        return files.find_commit(base, revision)
    except Exception as error:  # every library below raises its own kinds
        raise _load_error(base, LocatedBase(base, "", revision), error) from error


def name_encoder(kind: str, has_decoder: bool = False) -> str:
    """Return in words what a transformer is if it is no decoder alone; else "".

    transformers lists the models that write text, and those that fill in masks.

    Parameters
    ----------
    kind : "model_type" of its configuration.
    has_decoder : "is_encoder_decoder" of it.
    """
    from transformers.models.auto import modeling_auto as known

    if kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return f"it is an encoder ({kind})"
    if has_decoder or kind in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return f"it is an encoder-decoder ({kind})"
    writes = {
        *known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        *known.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    }
    if kind not in known.MODEL_MAPPING_NAMES or {kind, kind.removesuffix("_text")} & writes:
        return ""  # code of its own is found elsewhere
    return f"it is an encoder ({kind})"


def _prepare(config: Any, spec: VariantSpec, attention: Attention) -> None:
    """Set attention and depth on a configuration before the weights are read."""
    if reason := name_encoder(config.model_type, getattr(config, "is_encoder_decoder", False)):
        raise ModelError(
            f"{spec.base}: {reason}; expected a decoder. sentence-transformers gives its vectors, "
            f"with its own pooling: --model {spec.base}, or embedder.load_encoder in Python."
        )
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        if not isinstance(getattr(config, name, None), int):
            raise ModelError(
                f"{spec.base} has no {name} in its configuration; expected a text decoder."
            )
    # Set on top of a configuration that says so itself, it would widen gemma3's windows by one.
    if attention.is_causal or not attends_both_ways(config):
        config.is_causal = attention.is_causal
    depth = config.num_hidden_layers
    if spec.base_layers is not None:
        if spec.base_layers > depth:
            raise UsageError(f"base_layers is {spec.base_layers}, but {spec.base} has {depth}.")
        config.num_hidden_layers = spec.base_layers
        if getattr(config, "layer_types", None):
            config.layer_types = list(config.layer_types)[: spec.base_layers]


def _load_error(base: str, located: LocatedBase, error: Exception) -> ModelError:
    if "use_safetensors" in str(error):
        return ModelError(
            f"The base {base!r} has no safetensors weights; those alone are read, since pickle "
            f"files can run code. Save it with transformers' save_pretrained, or use another base."
        )
    if located.identity:
        return ModelError(f"The base {base!r} cannot be loaded: {first_line(error)}")
    return ModelError(
        f"The base {base!r} cannot be loaded from the model hub: {first_line(error)} Check the "
        f"name and the network, or use a built-in base (millpond models) or a model folder."
    )
