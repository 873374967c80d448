"""The linear layer from a student's vectors to the teacher's width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retrieval.protocols import Vectors

__all__ = ["PROJECTION", "fit_projection", "make_projection"]

PROJECTION = "teacher_projection"
"""The submodule of the student that is trained with it and saved in checkpoints alone."""

_RIDGE = 1e-2
"""Share of the mean variance that is added to every variance, so that few texts do."""


def make_projection(width: int, teacher_width: int) -> nn.Linear:
    """Return a layer of zeros from (N, width) to (N, teacher_width), without a bias."""
    layer = nn.Linear(width, teacher_width, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def fit_projection(student: Vectors, teacher: Vectors) -> Tensor:
    """Return the (W, D) weight that brings (N, D) vectors nearest to the teacher's (N, W).

    By least squares with a small ridge, so that training begins where a linear map alone gets.
    """
    rows, targets = torch.from_numpy(student).double(), torch.from_numpy(teacher).double()
    products = rows.T @ rows
    ridge = _RIDGE * products.diagonal().mean() * torch.eye(rows.shape[1], dtype=torch.float64)
    weight: Tensor = torch.linalg.solve(products + ridge, rows.T @ targets)
    return weight.T.float().contiguous()
