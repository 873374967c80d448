"""The decoder, from token ids to states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from embedder.engine.batches import PaddedBatch
from embedder.engine.packing import PackedBatch, packed_states, use_packed_attention
from embedder.engine.probe import Packing, choose_packing, probe_attention
from embedder.environment import first_line, quiet_transformers, refuse_missing_weights
from embedder.models.foreign.adapters import merge_adapters
from embedder.models.foreign.files import (
    ask_commit,
    fetch_file,
    name_encoder,
    not_on_hub,
    refuse_code,
)
from embedder.models.foreign.known import (
    KEY_MAPPING,
    decoder_config,
    read_latents,
    read_nv_embed,
)
from embedder.models.locate import LocatedBase, locate_base
from embedder.models.names import is_saved_model
from embedder.pooling.registry import head_tensors
from embedder.variants import ATTENTIONS, Attention, VariantSpec, attends_both_ways
from retrieval.errors import MillpondError, ModelError, UsageError, check_fork
from retrieval.protocols import Notify


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
    """A loaded decoder whose attention was probed; one on "meta", without weights, cannot be.

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
    ModelError : it cannot compute.
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
        self.packing = Packing() if self.device.type == "meta" else self._probe(described)
        self.longest_packed = self.packing.longest

    def _probe(self, described: str) -> Packing:
        model: Any = self.model
        was_training = model.training
        model.eval()
        use_packed_attention(model)
        probe_attention(
            self.token_states,
            self.attention,
            vocabulary=int(model.config.vocab_size),
            device=self.device,
            described=described,
        )
        is_causal = self.attention.is_causal
        packing = choose_packing(model, self.token_states, is_causal, self.blocks)
        model.train(was_training)
        return packing

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

    def read(self, batch: PackedBatch | PaddedBatch, layers: Collection[int]) -> States:
        """Return the last layer's token states, and a vector per text of each layer asked for.

        ``layers`` counts from 1 (the first decoder layer's output) to L (after the final norm).
        Each layer is reduced by ``attention.layer_summary`` as soon as it is computed, so no more
        than one layer's token states are held.
        """
        kept: dict[int, Tensor] = {}
        own = threading.get_ident()

        def reduce(states: Tensor) -> Tensor:
            with torch.autocast(states.device.type, enabled=False):  # a mean in bf16 loses digits
                return batch.reduce(states.float(), self.attention.layer_summary)

        def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if threading.get_ident() != own:
                    return  # it sees what any thread computes meanwhile
                kept[layer] = reduce(output[0] if isinstance(output, tuple) else output)

            return hook

        inner = {layer for layer in layers if layer < self.layer_count}
        hooks = [
            block.register_forward_hook(keep(layer))
            for layer, block in enumerate(self.blocks() if inner else (), start=1)
            if layer in inner
        ]
        try:
            if isinstance(batch, PaddedBatch):
                last = self.token_states(batch.ids, batch.mask)
            else:
                last = self.packed_states(batch)
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
    spec: VariantSpec,
    device: torch.device,
    dtype: torch.dtype,
    notify: Notify,
    located: LocatedBase | None = None,
) -> Backbone:
    """Return the spec's base on ``device`` in ``dtype``, in evaluation mode.

    Weights are read from safetensors only, and no code from a model folder is run. ``located`` is
    what ``locate_base`` found, if it was asked before. On the device "meta" the base has its shape
    and no weights, which takes seconds for any size.

    Raises
    ------
    UnknownNameError, UsageError : no such base, or more layers asked for than it has.
    DownloadError, ModelError, StorageError : it cannot be fetched or loaded.
    AttentionProbeError : it does not have the attention asked for.
    """
    from transformers import AutoModel, AutoTokenizer

    check_fork("torch", torch.get_num_threads())
    attention = ATTENTIONS[spec.attention]
    if located is None:
        located = locate_base(spec.base, spec.revision, notify, spec.adapter_base)
    with quiet_transformers():
        try:
            # One commit for every file: a branch can move between two of them.
            if located.identity:
                revision = located.revision
            else:
                revision = ask_commit(located.path, located.revision, notify)
            where = {"revision": revision, "trust_remote_code": False}
            config, known = _read_config(spec, located, where)
            _prepare(config, spec, attention)
            words, version = located.tokenizer if located.adapters else (located.path, revision)
            where_words = where | {"revision": version} | ({"config": config} if known else {})
            tokenizer = AutoTokenizer.from_pretrained(words, **where_words)
            tokenizer("a")  # what is wrong in its files may show only in use
            head: dict[str, Tensor] = {}
            if device.type == "meta":
                make: Any = AutoModel.from_config
                with device:
                    model = make(config, dtype=dtype)
            else:
                settings = {"config": config, "dtype": dtype, **where}
                model, head = _read_weights(spec, located, known, settings)
        except MillpondError:
            raise
        except Exception as error:  # every library below raises its own kinds
            raise _load_error(spec.base, located, error) from error
    identity = located.identity or str(revision)
    return Backbone(model.to(device).eval(), tokenizer, attention, identity, spec.base, head)


def _read_weights(
    spec: VariantSpec,
    located: LocatedBase,
    known: dict[str, Any] | None,
    settings: Mapping[str, Any],
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the model, and the weights of the layers that stand after its pooling."""
    from transformers import AutoModel

    model, found = AutoModel.from_pretrained(
        located.path,
        use_safetensors=True,
        key_mapping=KEY_MAPPING if known else None,
        output_loading_info=True,
        **settings,
    )
    refuse_missing_weights(f"The base {spec.base!r}", found["missing_keys"])
    if located.adapters:
        model = merge_adapters(model, located.adapters, spec.base_layers)
        return model, _read_head(spec, spec.base, spec.revision)
    if known and spec.pooling == "latent_attention":
        return model, read_latents(located.path, settings["revision"], spec.base)
    return model, _read_head(spec, located.path, settings["revision"])


def _read_head(spec: VariantSpec, path: str, revision: str | None) -> dict[str, Tensor]:
    """Return the weights of the layers after a published model's pooling.

    A MODEL_DIR that holds a whole base keeps them with the weights of its pooling.
    """
    weighty = [layer for layer in spec.head if layer.kind != "Normalize" and layer.path]
    if is_saved_model(path) or not weighty:
        return {}
    read = {}
    for layer in weighty:
        name = f"{layer.path}/model.safetensors"
        found = fetch_file(path, name, revision)
        if found is None:
            raise ModelError(
                f"The base {spec.base!r} has no {name}, the weights of a layer after its pooling. "
                f"Pickle files are not read, since they can run code; type --model st:{spec.base}."
            )
        read[layer.path] = safetensors.torch.load_file(str(found))
    return head_tensors(spec.head, read)


def _read_config(
    spec: VariantSpec, located: LocatedBase, where: Mapping[str, Any]
) -> tuple[Any, dict[str, Any] | None]:
    """Return the decoder's configuration, and of an NV-Embed also the whole of it, else None."""
    from transformers import AutoConfig

    if located.builtin:
        return AutoConfig.from_pretrained(located.path, **where), None
    known = read_nv_embed(located.path, where["revision"])
    if known:
        return decoder_config(known), known
    refuse_code(spec.base, located.path, where["revision"])
    config = AutoConfig.from_pretrained(located.path, **where)
    if reason := name_encoder(config.model_type, getattr(config, "is_encoder_decoder", False)):
        raise ModelError(
            f"{spec.base}: {reason}; expected a decoder. sentence-transformers gives its vectors, "
            f"with its own pooling: --model {spec.base}, or embedder.load_encoder in Python."
        )
    return config, None


def _prepare(config: Any, spec: VariantSpec, attention: Attention) -> None:
    """Set attention and depth on a configuration before the weights are read."""
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
    if "no file named model.safetensors" in str(error):
        return ModelError(
            f"The base {base!r} has no safetensors weights; those alone are read, since pickle "
            f"files can run code. Save it with transformers' save_pretrained, or use another base."
        )
    if located.identity:
        return ModelError(f"The base {base!r} cannot be loaded: {first_line(error)}")
    return not_on_hub(base, error)
