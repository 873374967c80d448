"""The linear layer from a student's vectors to the teacher's width, kept in the model or not."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedder.embedder import Embedder
from embedder.pooling.registry import Headed, HeadLayer
from retrieval.protocols import Vectors

PROJECTION = "teacher_projection"
"""The submodule of the student that is trained with it and saved in checkpoints alone."""

_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shares of the mean variance that may be added to every variance, so that few texts do."""

_LEFT_OUT = 5
"""Every so manyth text judges the ridges."""


def with_projection(embedder: Embedder, width: int, space: str) -> Embedder:
    """Return the embedder with a Dense layer of zeros from its vectors to (N, width).

    Parameters
    ----------
    space : the digest of the teacher's fingerprint.
    """
    reads = embedder.dimension
    layer = HeadLayer(path="", kind="Dense", reads=reads, width=width, bias=False, space=space)
    found = Embedder(replace(embedder.spec, head=(layer,)), embedder.backbone)
    nn.init.zeros_(kept_layer(found).weight)
    return found


def kept_layer(embedder: Embedder) -> nn.Linear:
    """Return the Dense layer that ``with_projection`` added."""
    headed = embedder.pooling
    assert isinstance(headed, Headed)
    linear = headed.head[0][0]  # type: ignore[index]
    assert isinstance(linear, nn.Linear)
    return linear


def without_projection(embedder: Embedder) -> Embedder:
    """Return the embedder as it was before the layer, on the same weights."""
    headed = embedder.pooling
    assert isinstance(headed, Headed)
    twin = Embedder(replace(embedder.spec, head=(), normalize=True), embedder.backbone)
    twin.pooling = headed.inner
    return twin


def fit_projection(student: Vectors, teacher: Vectors) -> Tensor:
    """Return the (W, D) weight that brings (N, D) vectors nearest to the teacher's (N, W).

    By ridge regression, so that training begins where a linear map alone gets. The ridge is the one
    under which texts that are left out come nearest to the teacher.
    """
    rows, targets = torch.from_numpy(student).double(), torch.from_numpy(teacher).double()
    judging = torch.arange(len(rows)) % _LEFT_OUT == _LEFT_OUT - 1
    ridge = _RIDGES[-1]
    if judging.any():
        known, left_out = (rows[~judging], targets[~judging]), (rows[judging], targets[judging])

        def judge(ridge: float) -> float:
            found = F.cosine_similarity(left_out[0] @ _solve(*known, ridge).T, left_out[1])
            return float(found.mean())

        ridge = max(_RIDGES, key=judge)
    return _solve(rows, targets, ridge).float().contiguous()


def _solve(rows: Tensor, targets: Tensor, ridge: float) -> Tensor:
    products = rows.T @ rows
    added = ridge * products.diagonal().mean().clamp(min=1e-12)
    products += added * torch.eye(rows.shape[1], dtype=rows.dtype)
    weight: Tensor = torch.linalg.solve(products, rows.T @ targets)
    return weight.T
