"""Reads a MODEL_DIR, the folder of a trained model; see ``embedder.models.manifest``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from embedder.engine.backbone import Backbone, load_backbone
from embedder.models.locate import locate_base
from embedder.models.lora import copy_tensors, load_adapter, merge_adapter
from embedder.models.manifest import (
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    BaseRecord,
    Manifest,
    read_manifest,
    read_tensors,
)
from embedder.variants import VariantSpec
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify

__all__ = ["SavedParts", "load_parts"]


@dataclass(frozen=True)
class SavedParts:
    """What a MODEL_DIR holds, loaded.

    Attributes
    ----------
    spec : the saved one, its base a name or folder that can be loaded from anywhere.
    backbone : with the adapter, folded in or not.
    pooling : weights by name; empty where the pooling has none.
    """

    folder: Path
    manifest: Manifest
    spec: VariantSpec
    backbone: Backbone
    pooling: Mapping[str, Tensor]

    def fill_pooling(self, pooling: nn.Module) -> None:
        """Copy the saved weights into the spec's pooling, or raise ModelError."""
        source = self.folder / POOLING_WEIGHTS
        copy_tensors(dict(pooling.named_parameters()), self.pooling, source)


def load_parts(
    folder: Path, device: torch.device, dtype: torch.dtype, notify: Notify, *, merge: bool = True
) -> SavedParts:
    """Return the parts of a trained model.

    Parameters
    ----------
    merge : whether LoRA is folded into the base's weights: faster, and equal to 1e-5 in float32.

    Raises
    ------
    SourceNotFoundError : the folder holds no saved model.
    ModelError : a file is missing or damaged, or the base is not the one it was trained on.
    """
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    backbone = _load_base(folder, manifest, device, dtype, notify)
    if manifest.has_adapter:
        adapter = folder / ADAPTER_WEIGHTS
        load_adapter(backbone, adapter.parent, read_tensors(adapter))
        if merge:
            merge_adapter(backbone)
    elif not manifest.is_whole:
        backbone.requires_grad_(False)
    pooling = read_tensors(folder / POOLING_WEIGHTS) if POOLING_WEIGHTS in manifest.files else {}
    return SavedParts(folder, manifest, _loadable_spec(folder, manifest), backbone, pooling)


def _loadable_spec(folder: Path, manifest: Manifest) -> VariantSpec:
    """Return the spec with a base that can be loaded from anywhere."""
    return replace(manifest.spec, base=str(folder)) if manifest.is_whole else manifest.spec


def _load_base(
    folder: Path, manifest: Manifest, device: torch.device, dtype: torch.dtype, notify: Notify
) -> Backbone:
    """Return the backbone that the saved weights belong to, or raise ModelError."""
    spec = _loadable_spec(folder, manifest)
    if not manifest.is_whole:
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
    if not manifest.is_whole:
        _check_identity(folder, manifest.base, backbone.identity)
    return backbone


def _check_identity(folder: Path, base: BaseRecord, found: str) -> None:
    if found != base.identity:
        raise ModelError(
            f"{folder} was trained on {base.name!r} with the identity {base.identity}, but what "
            f"has this name here is {found}. Its vectors would be wrong: bring back the base it "
            f"was trained on, or train again."
        )
