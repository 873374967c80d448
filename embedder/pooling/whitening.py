"""Whitening after any pooling: a mean taken off and one matrix, both fitted on texts.

Decoder states lie in a narrow cone: some directions carry most of every vector, whatever the
text says. Taking off the mean and evening out the variances lets the rest count (BERT-whitening,
arXiv 2103.15316). A power below 1/2 evens them out in part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Whitened", "fit_whitening", "without_whitening"]

_FLOOR = 1e-3
"""Variances below this share of the average count as this, so that noise is not blown up."""


class Whitened(nn.Module):
    """A pooling followed by ``(x - mean) @ matrix``, where x is its vector at length 1.

    It starts with the mean 0 and the identity matrix, which leaves every direction as it is, and
    is trained like the weights of a pooling.

    Parameters
    ----------
    inner : the pooling, (B, S, D) float32 and (B, S) bool to (B, D) float32.
    width : D.
    """

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.mean = nn.Parameter(torch.zeros(width))
        self.matrix = nn.Parameter(torch.eye(width))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, D) float32."""
        return (F.normalize(self.inner(states, mask), dim=-1) - self.mean) @ self.matrix

    def set(self, mean: Tensor, matrix: Tensor) -> None:
        """Take a fitted mean (D,) and matrix (D, D)."""
        with torch.no_grad():
            self.mean.copy_(mean)
            self.matrix.copy_(matrix)


def without_whitening(pooling: nn.Module) -> nn.Module:
    """Return the pooling itself, without the whitening after it where there is one."""
    return pooling.inner if isinstance(pooling, Whitened) else pooling


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
