"""Imports checkpoints of arXiv 2409.02727's authors (github.com/yixuantt/PoolingAndAttn).

Their trainers write a peft adapter, the tokenizer and, for a trainable pooling, attn_pool.pt.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.backbone import Backbone, load_backbone
from embedder.models.bases import file_sha256
from embedder.models.foreign.adapters import read_adapter
from embedder.models.foreign.files import read_model_json
from embedder.models.foreign.known import pooling_options, rename_latents
from embedder.models.lora import copy_tensors, load_adapter
from embedder.models.manifest import read_tensors
from embedder.models.saving import WeightsDtype, check_new_folder, check_weights_dtype, save_model
from embedder.variants import PAPER_MODELS, VariantSpec, get_variant
from retrieval.errors import ModelError, SourceNotFoundError, UnknownNameError, UsageError
from retrieval.protocols import Notify, silent

PAPER_HEADS = 32
"""Attention heads of the paper's trainable poolings."""

_POOL = "attn_pool"
_PLAIN = {
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}
"""Settings of an adapter that a MODEL_DIR can hold, where they are there."""


def import_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    variant: str,
    base: str | None = None,
    heads: int = PAPER_HEADS,
    weights_dtype: WeightsDtype = "float32",
    notify: Notify = silent,
) -> None:
    """Write a checkpoint of the paper's authors as a MODEL_DIR, which gives their vectors.

    Parameters
    ----------
    checkpoint : the folder with adapter_config.json; attn_pool.pt or attn_pool.safetensors lies
        in it, or beside it under the folder's name, where their trainer puts it.
    variant : "model1" to "model5".
    base : as in a model's name; by default the one that adapter_config.json names.
    heads : of the trainable pooling.

    Raises
    ------
    UnknownNameError : no such variant.
    UsageError : the adapter has settings that a MODEL_DIR does not hold, ``heads`` does not fit, or
        ``out`` is not empty.
    SourceNotFoundError : no such folder.
    ModelError : no adapter; a tensor is missing or unknown; or the base does not fit.
    StorageError : ``out`` cannot be written.
    """
    if variant not in PAPER_MODELS:
        raise UnknownNameError("model of arXiv 2409.02727", variant, PAPER_MODELS)
    check_weights_dtype(weights_dtype)
    check_new_folder(out)
    if not checkpoint.is_dir():
        raise SourceNotFoundError(f"{checkpoint}: there is no such folder.")
    adapter = read_adapter(str(checkpoint.resolve()))
    if adapter is None:
        raise ModelError(f"{checkpoint}: it has no adapter_config.json; expected a checkpoint.")
    _check_plain(checkpoint)
    chosen = get_variant(variant)
    spec = VariantSpec(
        base=base or adapter.base, pooling=chosen.pooling, attention=chosen.attention
    )
    if not spec.base:
        raise UsageError(f"{checkpoint} names no base. Type it: --base BASE.")
    file = _find_pooling(checkpoint) if chosen.trainable else None
    backbone = load_backbone(spec, torch.device("cpu"), torch.float32, notify)
    backbone.requires_grad_(False)
    adapter_file = adapter.folder / "adapter_model.safetensors"
    load_adapter(backbone, adapter.folder, read_tensors(adapter_file))
    embedder = _build(spec, backbone, file, heads)
    record = {
        "from": checkpoint.resolve().name,
        "variant": variant,
        "sha256": {path.name: file_sha256(path) for path in (adapter_file, file) if path},
    }
    save_model(embedder, out, record={"imported": record}, weights_dtype=weights_dtype)


def _build(spec: VariantSpec, backbone: Backbone, file: Path | None, heads: int) -> Embedder:
    """Return the model with the pooling of the file, where it has one."""
    if file is None:
        return Embedder(spec, backbone)
    layers = backbone.layer_count if spec.pooling == "multi_layer" else None
    source = str(file)
    weights = rename_latents(_load(file), source, queries_are_latents=True, layers=layers)
    options = pooling_options(weights, heads, source)
    embedder = Embedder(replace(spec, pooling_options=options), backbone)
    copy_tensors(dict(embedder.pooling.named_parameters()), weights, file)
    return embedder


def _check_plain(checkpoint: Path) -> None:
    """Raise UsageError where the adapter is more than A and B in one rank."""
    config: dict[str, Any] = read_model_json(str(checkpoint), "adapter_config.json")
    for name, usual in _PLAIN.items():
        if config.get(name, usual) not in (usual, None):
            raise UsageError(
                f"{checkpoint}: its adapter has {name} {config[name]!r}, which their trainers do "
                f"not set. Name the folder itself as an adapter: --model {checkpoint}:eos+causal."
            )


def _find_pooling(checkpoint: Path) -> Path:
    """Return the file of the trainable pooling."""
    whole = checkpoint.resolve()
    places = [
        checkpoint / f"{_POOL}.safetensors",
        checkpoint / f"{_POOL}.pt",
        whole.with_name(f"{whole.name}{_POOL}.pt"),  # their trainer forgets the slash
    ]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise ModelError(
            f"{checkpoint}: it has no {_POOL}.pt, the weights of the pooling, and none lies beside "
            f"it as {places[-1].name}. model1 alone has no such file."
        )
    return found


def _load(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file; no code in it is run."""
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: it holds more than tensors, and nothing else is read, since pickle files can "
            f"run code."
        ) from error
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the file again.") from error
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ModelError(f"{path}: expected tensors by name, as torch.save(state_dict) writes.")
    return found
