"""Makes one model of others: LoRA folded into its base, or the average of several trainings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.models.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    Manifest,
    read_manifest,
    read_tensors,
)
from embedder.models.names import builtin_folder
from embedder.models.saving import (
    SavedWeights,
    WeightsDtype,
    check_new_folder,
    save_model,
    write_model,
)
from embedder.models.st_layout import read_decoder
from embedder.variants import spec_to_json
from retrieval.errors import ModelError, UsageError, count_noun
from retrieval.protocols import Notify, silent
from retrieval.typed import find_differences


def merge_model(
    folder: Path,
    out: Path,
    *,
    weights_dtype: WeightsDtype = "float32",
    notify: Notify = silent,
) -> None:
    """Write a model folder with the LoRA folded in, which loads without the original base.

    ``folder`` may be the name of a built-in model.

    Its vectors are those of ``folder`` to 1e-5 where ``weights_dtype`` is float32.

    Raises
    ------
    UsageError : ``folder`` holds its whole base already, or ``out`` is not empty.
    SourceNotFoundError, ModelError, DownloadError, StorageError : as ``Embedder.load`` and
        ``save_model``.
    """
    folder = builtin_folder(str(folder)) or folder
    manifest = read_manifest(folder)
    if manifest.is_whole:
        raise UsageError(f"{folder} holds its whole base already; there is nothing to fold in.")
    check_new_folder(out)
    embedder = Embedder.load_folder(folder, device="cpu", dtype=torch.float32, notify=notify)
    embedder.backbone.requires_grad_(True)  # to be saved whole
    save_model(
        embedder, out, record=manifest.record, weights_dtype=weights_dtype, base=manifest.base
    )


def soup_models(
    folders: Sequence[Path],
    out: Path,
    weights: Sequence[float] | None = None,
    *,
    exact: bool = False,
    weights_dtype: WeightsDtype = "float32",
) -> None:
    """Write the average of models trained from one spec, one base and one start.

    The average of several updates B A has a higher rank than each. By default A and B are
    averaged on their own, which keeps the rank and is near the average of the updates only where
    the trainings stayed close: a small difference of data or rate, one ``seed``, so that A
    started the same. The weights sum to 1 on A and on B, so a model mixed with itself is itself
    (peft's "linear" gives each the square root of a weight instead, which doubles the update of
    two equal adapters). ``exact`` keeps the average of the updates itself, by putting the
    adapters side by side: their ranks add up, and so do the files' sizes. Pooling weights are
    averaged either way.

    Parameters
    ----------
    folders : two or more MODEL_DIRs.
    weights : one per folder, above 0, divided by their sum; equal by default.

    Raises
    ------
    UsageError : fewer than two models, wrong weights, models of different specs, bases or LoRA
        options (names the field), models saved whole, or ``out`` is not empty.
    SourceNotFoundError, ModelError : a folder holds no model, or a damaged one.
    StorageError : ``out`` cannot be written.
    """
    shares = _shares(folders, weights)
    check_new_folder(out)
    manifests = [read_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        manifest.check_files(folder)
        if manifest.is_whole:
            raise UsageError(f"{folder} holds a whole base; soup averages adapters and poolings.")
        spec, lora = _compared(folders[0], manifests[0])
        own_spec, own_lora = _compared(folder, manifest)
        specs = find_differences(spec, own_spec)
        for key, first, here in chain(specs, find_differences(lora, own_lora, "LoRA")):
            raise UsageError(
                f"A soup is of one spec and one base: {key} is {first!r} in {folders[0]}, but "
                f"{here!r} in {folder}."
            )
    adapter: dict[str, Tensor] = {}
    config: dict[str, Any] = {}
    if manifests[0].has_adapter:
        config = _adapter_config(folders[0])
        loaded = [read_tensors(folder / ADAPTER_WEIGHTS) for folder in folders]
        adapter = _stack(loaded, shares) if exact else _average(loaded, shares, folders)
        if exact:  # alpha / rank stays as it was
            config |= {key: config[key] * len(folders) for key in ("r", "lora_alpha")}
    pooling: dict[str, Tensor] = {}
    if POOLING_WEIGHTS in manifests[0].files:
        loaded = [read_tensors(folder / POOLING_WEIGHTS) for folder in folders]
        pooling = _average(loaded, shares, folders)
    write_model(
        out,
        manifests[0].spec,
        manifests[0].base,
        SavedWeights(adapter, config, pooling, read_decoder(folders[0])),
        record=_soup_record(folders, manifests, shares, exact),
        weights_dtype=weights_dtype,
    )


def _shares(folders: Sequence[Path], weights: Sequence[float] | None) -> list[float]:
    if len(folders) < 2:
        raise UsageError("A soup needs two models or more.")
    given = [1.0] * len(folders) if weights is None else list(weights)
    if len(given) != len(folders):
        counted = count_noun(len(given), "weight")
        raise UsageError(f"Given {counted} for {len(folders)} models; expected one for each.")
    if not all(0 < weight < float("inf") for weight in given):
        raise UsageError(f"The weights are {given}; expected numbers above 0.")
    return [weight / sum(given) for weight in given]


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}).") from error
    return config


_LORA_KEYS = ("r", "lora_alpha", "target_modules", "fan_in_fan_out")


def _compared(folder: Path, manifest: Manifest) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return what models of one soup must share: the spec, and the LoRA if there is one."""
    spec = {**spec_to_json(manifest.spec), "base": manifest.base.identity}
    del spec["revision"]  # the identity says which it was
    lora = _adapter_config(folder) if manifest.has_adapter else None
    return spec, lora and {key: lora.get(key) for key in _LORA_KEYS}


def _average(
    loaded: Sequence[Mapping[str, Tensor]], shares: Sequence[float], folders: Sequence[Path]
) -> dict[str, Tensor]:
    """Return the weighted mean of every tensor, in float32."""
    for folder, tensors in zip(folders, loaded, strict=True):
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in loaded[0].items()}:
            raise ModelError(f"{folder} has other tensors than {folders[0]}.")
    return {
        name: sum(
            (share * tensors[name].float() for share, tensors in zip(shares, loaded, strict=True)),
            start=torch.zeros(()),
        )
        for name in loaded[0]
    }


def _stack(loaded: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Return one adapter whose B A is the weighted mean of all: [B1 B2] [s1 A1; s2 A2]."""
    stacked = {}
    for name in loaded[0]:
        is_a = ".lora_A." in name
        parts = [
            tensors[name].float() * (share if is_a else 1.0)
            for share, tensors in zip(shares, loaded, strict=True)
        ]
        stacked[name] = torch.cat(parts, dim=0 if is_a else 1)
    return stacked


def _soup_record(
    folders: Sequence[Path], manifests: Sequence[Manifest], shares: Sequence[float], exact: bool
) -> dict[str, Any]:
    return {
        "soup": [
            {"model": folder.resolve().name, "share": share, "weights": manifest.trained_sha256}
            for folder, manifest, share in zip(folders, manifests, shares, strict=True)
        ],
        "method": "average of the updates" if exact else "average of A and of B",
        "parts": [
            {"base": asdict(manifest.base), "record": manifest.record} for manifest in manifests
        ],
    }
