"""Training that goes on from a model which was trained before."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedder.bases import Notify
from embedder.builtin import builtin_folder
from embedder.embedder import Embedder
from embedder.lora import adapter_parameters, adapter_scaling, copy_tensors, has_adapter
from embedder.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    Manifest,
    read_manifest,
    read_tensors,
)
from embedder.variants import VariantSpec
from retrieval.errors import ModelError, UsageError

__all__ = ["check_start", "describe_start", "load_start"]

_SAME = ("base", "pooling", "attention", "base_layers", "pooling_options")
"""What decides which weights there are; prompts and lengths may change."""


def load_start(embedder: Embedder, model: str, notify: Notify) -> None:
    """Put the trained weights of a model folder, or a built-in model, into ``embedder``.

    Parameters
    ----------
    embedder : as ``build_model`` made it: with a fresh LoRA where one is trained.

    Raises
    ------
    SourceNotFoundError : there is no such model.
    UsageError : the model is another variant, or its LoRA has another rank or alpha.
    ModelError : its weights are damaged, or belong to another base.
    """
    folder = _folder(model)
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    _check_same(embedder, manifest, model)
    if has_adapter(embedder.backbone):
        _check_scaling(embedder, folder, model)
        saved = read_tensors(folder / ADAPTER_WEIGHTS)
        copy_tensors(adapter_parameters(embedder.backbone), saved, folder / ADAPTER_WEIGHTS)
    pooling = dict(embedder.pooling.named_parameters())
    if pooling:
        copy_tensors(pooling, read_tensors(folder / POOLING_WEIGHTS), folder / POOLING_WEIGHTS)
    notify(f"Training goes on from {model}.")


def check_start(model: str) -> None:
    """Raise SourceNotFoundError or ModelError unless this is a trained model and whole."""
    folder = _folder(model)
    read_manifest(folder).check_files(folder)


def describe_start(model: str) -> dict[str, Any]:
    """Return what a model that starts from this one records of it: its weights, how it was made."""
    manifest = read_manifest(_folder(model))
    return {"trained_sha256": manifest.trained_sha256, "record": dict(manifest.record)}


def _folder(model: str) -> Path:
    return builtin_folder(model) or Path(model).expanduser()


def _check_same(embedder: Embedder, manifest: Manifest, model: str) -> None:
    """Raise unless the weights have a place in this embedder."""
    if manifest.is_whole or manifest.has_adapter != has_adapter(embedder.backbone):
        held = (
            "a whole base"
            if manifest.is_whole
            else ("LoRA weights" if manifest.has_adapter else "no LoRA weights")
        )
        hint = (
            ' Set adapter.kind to "lora".'
            if manifest.has_adapter
            else (f" Name it as model.base instead: base = {model!r}." if manifest.is_whole else "")
        )
        raise UsageError(f"adapter.start is {model!r}, which holds {held}.{hint}")
    differing = _differences(manifest.spec, embedder.spec)
    if differing:
        raise UsageError(
            f"adapter.start is {model!r}, a model of another variant: {'; '.join(differing)}. "
            f"Set [model] to the same, or leave adapter.start out."
        )
    if manifest.base.identity != embedder.backbone.identity:
        raise ModelError(
            f"{model} was trained on other weights of {manifest.base.name!r} "
            f"({manifest.base.identity[:12]} then, {embedder.backbone.identity[:12]} now)."
        )


def _differences(theirs: VariantSpec, ours: VariantSpec) -> list[str]:
    """Return one clause per field in which the two differ."""
    pairs = [(name, getattr(theirs, name), getattr(ours, name)) for name in _SAME]
    found = []
    for name, old, new in pairs:
        if name == "pooling_options":
            old, new = (dict(asdict(old), seed=0, init=""), dict(asdict(new), seed=0, init=""))
        if old != new:
            found.append(f"{name} is {old!r} there and {new!r} here")
    return found


def _check_scaling(embedder: Embedder, folder: Path, model: str) -> None:
    """Raise UsageError where the LoRA would be read with another rank or strength."""
    saved = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    rank, alpha = adapter_scaling(embedder.backbone)
    for name, old, new in (("rank", saved["r"], rank), ("alpha", saved["lora_alpha"], alpha)):
        if old != new:
            raise UsageError(
                f"adapter.{name} is {new}, but {model} was trained with {old}. "
                f"Set adapter.{name} = {old}, or leave adapter.start out."
            )
