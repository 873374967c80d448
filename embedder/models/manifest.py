"""``millpond.json``: what a saved model is and which files hold its weights, which are loaded here.

::

    MODEL_DIR/millpond.json        what this module reads and writes
    MODEL_DIR/adapter/             LoRA in peft's format, where one was trained
    MODEL_DIR/pooling.safetensors  where the pooling has weights
    MODEL_DIR/config.json, ...     the whole base, where all of it was trained or LoRA folded in
    MODEL_DIR/README.md            model card
    MODEL_DIR/modules.json, config_sentence_transformers.json   for sentence-transformers
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedder.engine.backbone import Backbone, load_backbone
from embedder.models.bases import file_sha256, read_tensors, weights_sha256
from embedder.models.locate import locate_base
from embedder.models.lora import copy_tensors, load_adapter, merge_adapter
from embedder.models.names import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FORMAT_VERSION,
    MANIFEST_NAME,
    POOLING_WEIGHTS,
    WHOLE,
    join_sha256,
    refuse_index,
)
from embedder.variants import VariantSpec, spec_to_json
from retrieval.errors import ModelError, SourceNotFoundError, UsageError
from retrieval.protocols import Notify
from retrieval.typed import load_json, read_stored

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "MANIFEST_NAME",
    "POOLING_WEIGHTS",
    "WHOLE",
    "BaseRecord",
    "Manifest",
    "fill_pooling",
    "load_saved_backbone",
    "read_manifest",
    "read_tensors",
]


@dataclass(frozen=True)
class BaseRecord:
    """The base that training started from.

    Attributes
    ----------
    identity : of its weights: a SHA-256, or a hub id's commit.
    width : D, the length of its states.
    """

    name: str
    revision: str | None
    identity: str
    width: int


@dataclass(frozen=True)
class Manifest:
    """What millpond.json holds.

    Attributes
    ----------
    spec : its base is "." where the folder holds the whole base.
    base : what training started from.
    record : how it was made, as the trainer recorded it.
    files : SHA-256 of every file with trained weights, by name.
    whole_sha256 : of the whole base's weights and configuration, where the folder holds them.
    """

    spec: VariantSpec
    base: BaseRecord
    record: Mapping[str, Any]
    files: Mapping[str, str]
    whole_sha256: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the folder holds the whole base."""
        return self.spec.base == WHOLE

    @property
    def has_adapter(self) -> bool:
        """Whether the folder holds LoRA weights."""
        return ADAPTER_WEIGHTS in self.files

    @property
    def trained_sha256(self) -> str:
        """One SHA-256 over the files with trained weights beside the base's."""
        return join_sha256(self.files)

    def to_json(self) -> str:
        """Return the text of millpond.json."""
        data = {
            "format_version": FORMAT_VERSION,
            "spec": spec_to_json(self.spec),
            "base": asdict(self.base),
            "files": dict(self.files),
            "whole_sha256": self.whole_sha256,
            "record": self.record,
        }
        return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

    def check_files(self, folder: Path) -> None:
        """Raise ModelError unless every file with weights is there, as it was written."""
        for name, sha256 in self.files.items():
            path = folder / name
            if not path.is_file():
                pickled = path.with_suffix(".bin")
                note = (
                    f" {pickled.name} is not read, since pickle files can run code."
                    if pickled.is_file()
                    else ""
                )
                raise ModelError(f"{path}: the file is missing.{note} Copy the folder again.")
            if _sha256(path) != sha256:
                raise _damaged(path)
        if self.is_whole and weights_sha256(folder) != self.whole_sha256:
            raise _damaged(folder)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder.

    Raises
    ------
    SourceNotFoundError : there is none.
    UsageError : this is an index.
    ModelError : it is damaged, of a newer millpond, or has a key that is not known.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        refuse_index(folder)
        raise SourceNotFoundError(
            f"{folder}: there is no {MANIFEST_NAME}; expected a folder that millpond train, "
            f"whiten, merge or soup wrote."
        )
    try:
        data = load_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the folder again.") from error
    try:
        return _parse(data)
    except ValueError as error:
        raise ModelError(f"{path}: {str(error).removesuffix('.')}.") from error


def _parse(data: Any) -> Manifest:
    if isinstance(data, dict):
        version = data.pop("format_version", None)
        if not isinstance(version, int):
            raise ValueError("it has no format_version, a whole number.")
        if version > FORMAT_VERSION:
            raise ValueError(
                f"a newer millpond wrote this (format {version}; {FORMAT_VERSION} is read). "
                f"Upgrade millpond to load it."
            )
    return read_stored(Manifest, data)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"{path}: the weights are not those that {MANIFEST_NAME} lists: they are damaged, cut "
        f"short, or from another model. Copy the folder again."
    )


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
        located = locate_base(spec.base, spec.revision, notify, spec.adapter_base)
    except UsageError as error:
        raise ModelError(
            f"{folder}: its base {spec.base!r} is not here any more. {error}"
        ) from error
    if located.identity:
        _check_identity(folder, manifest.base, located.identity)
    else:  # of the hub: the commit, wherever the branch is now
        spec = replace(spec, revision=manifest.base.identity)
    found = located if located.identity else None
    backbone = load_backbone(spec, device, dtype, notify, found)
    _check_identity(folder, manifest.base, backbone.identity)
    return backbone


def _check_identity(folder: Path, base: BaseRecord, found: str) -> None:
    if found != base.identity:
        raise ModelError(
            f"{folder} was trained on {base.name!r} with the identity {base.identity}, but what "
            f"has this name here is {found}. Its vectors would be wrong: bring back the base it "
            f"was trained on, or train again."
        )
