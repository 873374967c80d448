"""Fits a whitening on texts and puts it behind a model's pooling; see ``pooling.registry``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedder.embedder import Embedder
from embedder.models.manifest import (
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    read_manifest,
    read_tensors,
)
from embedder.models.names import SavedName, find_saved_model
from embedder.models.saving import WeightsDtype, check_new_folder, check_weights_dtype, save_model
from embedder.pooling.registry import Whitened, without_whitening
from retrieval.errors import UsageError
from retrieval.protocols import Notify, Progress, no_progress, silent

POWER = 0.25
"""Halfway between the mean alone (0) and equal variances (0.5)."""

_FLOOR = 1e-3
"""Variances below this share of the average count as this, so that noise is not blown up."""


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
    notify: Notify = silent,
    progress: Progress = no_progress,
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
        raise UsageError(f"power is {power:g}; expected 0 (the mean alone) to 0.5 (whole).")
    if not 0 <= mean_share <= 1:
        raise UsageError(f"mean_share is {mean_share:g}; expected 0 (none of the mean) to 1.")
    if weights_dtype is not None:
        check_weights_dtype(weights_dtype)
    check_new_folder(out)
    queries, documents = list(dict.fromkeys(queries)), list(dict.fromkeys(documents))
    found = find_saved_model(model)
    manifest = read_manifest(found.folder) if found else None
    loaded = _load(model, found, device, notify)
    needed, texts = loaded.width, len(queries) + len(documents)
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
        loaded = _load(model, found, device, silent, merge=False)
    head = Whitened(without_whitening(loaded.pooling), needed).to(loaded.device)
    head.set(*fitted)
    loaded.backbone.requires_grad_(manifest is not None and manifest.is_whole)  # saved if it is
    whitening = {"from": model, "power": power, "mean_share": mean_share, "texts": texts}
    save_model(
        _twin(loaded, head, whiten=True),
        out,
        record={
            **(manifest.record if manifest else {}),
            "whitening": {**whitening, **(record or {})},
        },
        weights_dtype=weights_dtype or (_saved_dtype(found.folder) if found else "float32"),
        base=manifest.base if manifest else None,
    )


def fit_whitening(vectors: Tensor, power: float, mean_share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) and the matrix (D, D), float32, that whiten vectors (N, D).

    With the covariance C of the vectors at length 1, the matrix is C to the power -``power``,
    scaled so that whitened vectors have length 1 on average (root mean square). It is symmetric,
    the whitening that moves vectors the least, so the first coordinates of a Matryoshka model
    stay the first.

    Parameters
    ----------
    power : 0 to 0.5. 0 takes off the mean alone, 0.5 makes all variances equal.
    mean_share : 0 to 1, how much of the mean is taken off.
    """
    units = F.normalize(vectors.double(), dim=-1)
    mean = units.mean(dim=0)
    centred = units - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances = variances.clamp(min=0)
    floored = variances.clamp(min=_FLOOR * float(variances.mean()))
    gains = floored**-power
    matrix = (directions * gains) @ directions.T
    taken = mean_share * mean
    length = ((units - taken) @ matrix).square().sum(dim=-1).mean().sqrt()
    return taken.float(), (matrix / length).float()


def _load(
    model: str, found: SavedName | None, device: str | None, notify: Notify, *, merge: bool = True
) -> Embedder:
    """Return the model, a saved one in float32."""
    if found is None:
        return Embedder.load(model, device=device, notify=notify)
    return Embedder.load_folder(
        found.folder,
        name=found.name,
        options=found.options,
        device=device,
        dtype=torch.float32,
        notify=notify,
        merge=merge,
    )


def _twin(embedder: Embedder, pooling: nn.Module, *, whiten: bool, **changes: Any) -> Embedder:
    """Return an embedder over the same backbone with this pooling and a changed spec."""
    options = replace(embedder.spec.pooling_options, whiten=whiten)
    spec = replace(embedder.spec, pooling_options=options, **changes)
    twin = Embedder(spec, embedder.backbone)
    twin.pooling = pooling
    return twin


def _saved_dtype(folder: Path) -> WeightsDtype:
    """Return the dtype of the model's saved weights."""
    for path in (folder / ADAPTER_WEIGHTS, folder / POOLING_WEIGHTS):
        if path.is_file():
            kinds = {tensor.dtype for tensor in read_tensors(path).values()}
            return "bfloat16" if kinds == {torch.bfloat16} else "float32"
    return "float32"
