"""Fit a whitening on texts and put it behind a model's pooling; see ``pooling.whitening``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from embedder.embedder import Embedder
from embedder.models.manifest import (
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    Manifest,
    read_manifest,
    read_tensors,
)
from embedder.models.names import SavedName, find_saved_model
from embedder.models.new_folder import check_new_folder
from embedder.models.saved import WeightsDtype, check_weights_dtype, load_model, save_model
from embedder.pooling.whitening import Whitened, fit_whitening, without_whitening
from retrieval.errors import UsageError
from retrieval.protocols import Notify, Progress

__all__ = ["POWER", "whiten_model"]

POWER = 0.25
"""Halfway between the mean alone (0) and equal variances (0.5)."""


def whiten_model(
    model: str,
    queries: Sequence[str],
    documents: Sequence[str],
    out: Path,
    *,
    power: float = POWER,
    mean_share: float = 1.0,
    record: Mapping[str, Any] | None = None,
    weights_dtype: WeightsDtype | None = None,
    device: str | None = None,
    notify: Notify | None = None,
    progress: Progress | None = None,
) -> None:
    """Write ``model`` with a whitening fitted on texts as a MODEL_DIR; nothing is trained.

    A whitening that the model has already is fitted anew.

    Parameters
    ----------
    model : what ``Embedder.load`` accepts; an untrained one too.
    queries, documents : embedded with the prompt of each; together at least as many distinct
        texts as the model's vectors are long. Texts like those that will be searched serve best.
    power : 0 (take off the mean) to 0.5 (make all variances equal).
    mean_share : how much of the mean is taken off, 0 to 1.
    record : what identifies the texts, for the model's record.
    weights_dtype : of the saved weights; as ``model`` was saved by default.

    Raises
    ------
    UsageError : too few texts, ``power`` or ``mean_share`` out of range, or ``out`` is not empty.
    ModelError, StorageError, DownloadError, UnknownNameError : as ``Embedder.load`` and
        ``save_model``.
    """
    if not 0 <= power <= 0.5:
        raise UsageError(f"power is {power:g}; 0 (the mean alone) to 0.5 (whole) is accepted.")
    if not 0 <= mean_share <= 1:
        raise UsageError(f"mean_share is {mean_share:g}; 0 (none of the mean) to 1 is accepted.")
    if weights_dtype is not None:
        check_weights_dtype(weights_dtype)
    check_new_folder(out)
    queries, documents = list(dict.fromkeys(queries)), list(dict.fromkeys(documents))
    found = find_saved_model(model)
    manifest = read_manifest(found.folder) if found else None
    loaded = _load(model, found, manifest, device, notify)
    needed, texts = loaded.backbone.width, len(queries) + len(documents)
    if texts < needed:
        raise UsageError(
            f"There are {texts:,} distinct texts; {needed:,} or more are needed, as many as a "
            f"vector of {model} has numbers. Give more texts."
        )
    plain = _twin(
        loaded, without_whitening(loaded.pooling), whiten=False, dimension=None, normalize=True
    )
    vectors = np.concatenate(
        [
            plain.encode_queries(queries, progress=progress),
            plain.encode_documents(documents, progress=progress),
        ]
    )
    fitted = fit_whitening(torch.from_numpy(vectors), power, mean_share)
    if manifest and manifest.has_adapter:  # it was folded in, which is quicker, and is saved apart
        del plain, loaded
        loaded = _load(model, found, manifest, device, None, merge=False)
    head = Whitened(without_whitening(loaded.pooling), needed).to(loaded.device)
    head.set(*fitted)
    whitening = {"from": model, "power": power, "mean_share": mean_share, "texts": texts}
    save_model(
        _twin(loaded, head, whiten=True),
        out,
        record={
            **(manifest.record if manifest else {}),
            "whitening": {**whitening, **(record or {})},
        },
        weights_dtype=weights_dtype or _saved_dtype(found, manifest),
        base=manifest.base if manifest else None,
    )


def _load(
    model: str,
    found: SavedName | None,
    manifest: Manifest | None,
    device: str | None,
    notify: Notify | None,
    *,
    merge: bool = True,
) -> Embedder:
    """Return the model in float32, what is to be saved marked as trainable."""
    if found is None or manifest is None:
        loaded = Embedder.load(model, device=device, notify=notify)
        loaded.backbone.requires_grad_(False)
        return loaded
    loaded = load_model(
        found.folder,
        name=found.name,
        options=found.options,
        device=device,
        dtype=torch.float32,
        notify=notify,
        merge=merge,
    )
    if manifest.is_whole:
        loaded.backbone.requires_grad_(True)
    return loaded


def _twin(embedder: Embedder, pooling: nn.Module, *, whiten: bool, **changes: Any) -> Embedder:
    """Return an embedder over the same backbone with this pooling and a changed spec."""
    options = replace(embedder.spec.pooling_options, whiten=whiten)
    spec = replace(embedder.spec, pooling_options=options, **changes)
    twin = Embedder(spec, embedder.backbone)
    twin.pooling = pooling
    return twin


def _saved_dtype(found: SavedName | None, manifest: Manifest | None) -> WeightsDtype:
    """Return what the model's own weights are saved in."""
    for name in (ADAPTER_WEIGHTS, POOLING_WEIGHTS):
        if found and manifest and name in manifest.files:
            kinds = {tensor.dtype for tensor in read_tensors(found.folder / name).values()}
            return "bfloat16" if kinds == {torch.bfloat16} else "float32"
    return "float32"
