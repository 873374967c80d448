"""``millpond.json``: what a saved model is, and which files hold its weights.

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from embedder.models.bases import file_sha256, weights_sha256
from embedder.models.names import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FORMAT_VERSION,
    MANIFEST_NAME,
    POOLING_WEIGHTS,
    WHOLE,
    join_sha256,
)
from embedder.variants import VariantSpec, spec_to_json
from retrieval.errors import ModelError, SourceNotFoundError
from retrieval.typed import load_json, read_stored

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "MANIFEST_NAME",
    "POOLING_WEIGHTS",
    "WHOLE",
    "BaseRecord",
    "Manifest",
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
    ModelError : it is damaged, of a newer millpond, or has a key that is not known.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU; no other format is read.

    Raises
    ------
    ModelError : it is missing, cut short or no safetensors.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the folder again.") from error


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
