"""Reads a MODEL_DIR, the folder of a trained model; see ``embedder.models.manifest``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from embedder.engine.backbone import Backbone, load_backbone
from embedder.models.locate import locate_base
from embedder.models.lora import copy_tensors, load_adapter, merge_adapter
from embedder.models.manifest import (
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    BaseRecord,
    Manifest,
    read_tensors,
)
from embedder.variants import VariantSpec
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify

__all__ = ["fill_pooling", "load_saved_backbone"]


def load_saved_backbone(
    folder: Path,
    manifest: Manifest,
    device: torch.device,
    dtype: torch.dtype,
    notify: Notify,
    *,
    merge: bool = True,
) -> tuple[VariantSpec, Backbone]:
    """Return the spec of a trained model, its base one that loads from anywhere, and its backbone.

    Parameters
    ----------
    merge : whether LoRA is folded into the base's weights: faster, and equal to 1e-5 in float32.

    Raises
    ------
    ModelError : a file is missing or damaged, or the base is not the one it was trained on.
    """
    manifest.check_files(folder)
    spec = replace(manifest.spec, base=str(folder)) if manifest.is_whole else manifest.spec
    backbone = _load_base(folder, spec, manifest, device, dtype, notify)
    if manifest.has_adapter:
        adapter = folder / ADAPTER_WEIGHTS
        load_adapter(backbone, adapter.parent, read_tensors(adapter))
        if merge:
            merge_adapter(backbone)
    elif not manifest.is_whole:
        backbone.requires_grad_(False)
    return spec, backbone


def fill_pooling(folder: Path, manifest: Manifest, pooling: nn.Module) -> None:
    """Copy the saved weights of a pooling into it, or raise ModelError."""
    source = folder / POOLING_WEIGHTS
    saved = read_tensors(source) if POOLING_WEIGHTS in manifest.files else {}
    copy_tensors(dict(pooling.named_parameters()), saved, source)


def _load_base(
    folder: Path,
    spec: VariantSpec,
    manifest: Manifest,
    device: torch.device,
    dtype: torch.dtype,
    notify: Notify,
) -> Backbone:
    """Return the backbone that the saved weights belong to, or raise ModelError."""
    if manifest.is_whole:
        return load_backbone(spec, device, dtype, notify)
    try:
        located = locate_base(spec.base, spec.revision, notify)
    except UsageError as error:
        raise ModelError(
            f"{folder}: its base {spec.base!r} is not here any more. {error}"
        ) from error
    if located.identity:
        _check_identity(folder, manifest.base, located.identity)
    else:  # of the hub: the commit, wherever the branch is now
        spec = replace(spec, revision=manifest.base.identity)
    backbone = load_backbone(spec, device, dtype, notify)
    _check_identity(folder, manifest.base, backbone.identity)
    return backbone


def _check_identity(folder: Path, base: BaseRecord, found: str) -> None:
    if found != base.identity:
        raise ModelError(
            f"{folder} was trained on {base.name!r} with the identity {base.identity}, but what "
            f"has this name here is {found}. Its vectors would be wrong: bring back the base it "
            f"was trained on, or train again."
        )
