"""The linear layer from a student's vectors to the teacher's width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.protocols import Vectors

__all__ = ["PROJECTION", "fit_projection", "make_projection"]

PROJECTION = "teacher_projection"
"""The submodule of the student that is trained with it and saved in checkpoints alone."""

_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shares of the mean variance that may be added to every variance, so that few texts do."""

_LEFT_OUT = 5
"""Every so manyth text judges the ridges."""


def make_projection(width: int, teacher_width: int) -> nn.Linear:
    """Return a layer of zeros from (N, width) to (N, teacher_width), without a bias."""
    layer = nn.Linear(width, teacher_width, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


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
