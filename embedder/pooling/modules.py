"""The poolings: functions without weights first, then modules with weights.

All take states (B, S, D) float32 and a mask (B, S) bool, True at real tokens, and return (B, D)
float32, not yet normalised. S is the number of tokens, or of layers where one vector per layer is
read. Padding may stand on either side; a row has at least one real token. The arithmetic is float32
whatever the backbone's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedder.pooling.options import PoolingOptions

__all__ = [
    "CrossAttention",
    "FeedForward",
    "LatentKeyPooling",
    "LatentQueryPooling",
    "LayerWeightPooling",
    "Whitened",
    "last_token",
    "maximum",
    "mean",
    "weighted_mean",
    "without_whitening",
]

Result = TypeVar("Result")


def last_token(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each row's last real token."""
    tokens = mask.shape[1]
    last = tokens - 1 - mask.int().flip(1).argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), last]


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over each row's real tokens."""
    return _weighted(states, mask, mask.to(states.dtype))


def weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean with weights 1, 2, ..., n over the n real tokens (SGPT, arXiv 2202.08904).

    Under causal attention later tokens have seen more of the text, so they weigh more.
    """
    return _weighted(states, mask, mask.cumsum(dim=1).to(states.dtype))


def maximum(states: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value in each coordinate over the real tokens."""
    return states.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)


def _weighted(states: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Average with weights (B, T); padding may hold NaN, so it is replaced, not multiplied."""
    real = states.masked_fill(~mask.unsqueeze(-1), 0.0)
    weights = weights.masked_fill(~mask, 0.0)
    share = weights / weights.sum(dim=1, keepdim=True)
    return torch.einsum("btd,bt->bd", real, share)


class CrossAttention(nn.Module):
    """Multi-head attention of layer-normed queries to a layer-normed context, without biases.

    Parameters
    ----------
    width : D of queries, context and output.
    """

    def __init__(self, width: int, options: PoolingOptions) -> None:
        super().__init__()
        self.heads = options.heads or max(1, width // options.head_width)
        inner = self.heads * options.head_width
        self.query_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def project_queries(self, queries: Tensor) -> Tensor:
        """Return (B, S, D) as (B, heads, S, head width)."""
        return self._split(self.query(self.query_norm(queries)))

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of (B, S, D), both (B, heads, S, head width)."""
        normed = self.context_norm(context)
        return self._split(self.key(normed)), self._split(self.value(normed))

    def forward(
        self, projected: Tensor, context: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> Tensor:
        """Attend from projected queries (B, heads, Q, head width) to projected context.

        ``mask`` (B, S) bool is True where the context may be read. Returns (B, Q, D).
        """
        rows = projected.shape[0]
        key, value = (each.expand(rows, -1, -1, -1) for each in context)
        allowed = None if mask is None else mask[:, None, None, :]
        mixed = F.scaled_dot_product_attention(projected, key, value, attn_mask=allowed)
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined

    def shares(self, projected: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return how much ``forward`` attends to each place, (B, heads, Q, S); rows sum to 1."""
        key = self._split(self.key(self.context_norm(context)))
        scores = projected @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
        shares: Tensor = scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(dim=-1)
        return shares

    def initialise_identity(self) -> None:
        """Make value then output the identity, or the nearest to it that the widths allow."""
        inner, width = self.value.weight.shape
        basis = torch.eye(max(inner, width))[:inner, :width]
        with torch.no_grad():
            self.value.weight.copy_(basis)
            self.output.weight.copy_(basis.T)

    def _split(self, projected: Tensor) -> Tensor:
        rows, length, inner = projected.shape
        return projected.view(rows, length, self.heads, inner // self.heads).transpose(1, 2)


class KeptResult:
    """What follows from weights alone, computed once until one of them changes.

    Only where no gradient is asked for. A change is seen by the count that torch keeps of writes
    to a tensor, or by its place in memory.
    """

    def __init__(self) -> None:
        self._made_from: tuple[tuple[int, int], ...] = ()
        self._result: Any = None

    def __call__(self, compute: Callable[[], Result], module: nn.Module) -> Result:
        """Return ``compute()``, which reads no other tensors than the module's parameters."""
        weights = list(module.parameters())
        if torch.is_grad_enabled() or any(each.is_inference() for each in weights):
            return compute()  # inference tensors count no writes
        now = tuple((each.data_ptr(), each._version) for each in weights)
        if now != self._made_from:
            self._result, self._made_from = compute(), now
        result: Result = self._result
        return result


class FeedForward(nn.Module):
    """Layer norm, then a GELU-gated linear unit, then back to D (arXiv 2002.05202, GEGLU)."""

    def __init__(self, width: int, options: PoolingOptions) -> None:
        super().__init__()
        inner = width * options.feedforward_multiple
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * inner)
        self.contract = nn.Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        """Return the change to be added to ``states`` (..., D)."""
        value, gate = self.expand(self.norm(states)).chunk(2, dim=-1)
        changed: Tensor = self.contract(value * F.gelu(gate))
        return changed

    def initialise_silent(self) -> None:
        """Make the output zero, so that the residual passes through unchanged."""
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)


class LatentQueryPooling(nn.Module):
    """Learned latents attend to what is pooled (arXiv 2409.02727, section 3; ``last_layer`` and
    ``multi_layer``).

    R latents are the queries; keys and values are the last layer's states, or one vector per
    layer with a trainable layer-weight matrix W (L, D) added. Then residual, feed-forward with
    residual, and the mean over latents. We depart from the authors' code in masking padding.

    Parameters
    ----------
    width : D.
    layers : L, the number of vectors read per text, or None where tokens are read.
    extra_latents : beyond the options' own; L of them weigh as much as the layer-weight matrix.
    """

    def __init__(
        self, width: int, layers: int | None, options: PoolingOptions, extra_latents: int = 0
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(options.latents + extra_latents, width))
        weighted = layers is not None and options.layer_weights
        self.layer_weights = (
            nn.Parameter(torch.empty(layers, width)) if weighted and layers else None
        )
        self.attend = CrossAttention(width, options)
        self._projected = KeptResult()
        self.feedforward = FeedForward(width, options)
        identity = options.init == "identity"
        nn.init.normal_(self.latents, std=0.02 if identity else 1.0)
        if self.layer_weights is not None:
            nn.init.normal_(self.layer_weights, std=0.0 if identity else 1.0)
        if identity:
            self.attend.initialise_identity()
            self.feedforward.initialise_silent()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool (B, S, D) to (B, D)."""
        projected, context = self._prepare(states)
        mixed = self.attend(projected, self.attend.project_context(context), mask) + self.latents
        pooled: Tensor = (mixed + self.feedforward(mixed)).mean(dim=1)
        return pooled

    def shares(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return how much each place is attended to, (B, S), the mean over heads and latents."""
        projected, context = self._prepare(states)
        return self.attend.shares(projected, context, mask).mean(dim=(1, 2))

    def _prepare(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected latents (B, heads, R, head width) and what they attend to."""
        if self.layer_weights is not None:
            states = states + self.layer_weights
        projected = self._projected(
            lambda: self.attend.project_queries(self.latents.unsqueeze(0)), self
        )
        return projected.expand(states.shape[0], -1, -1, -1), states


class LayerWeightPooling(nn.Module):
    """One learned scalar per layer, by softmax, times that layer's vector (ELMo, arXiv
    1802.05365, equation 1; ``layer_weights``).

    ELMo's scalar gamma is left out: vectors are normalised afterwards.

    Parameters
    ----------
    layers : L, the number of vectors read per text.
    """

    def __init__(self, layers: int, options: PoolingOptions) -> None:
        super().__init__()
        self.scalars = nn.Parameter(torch.zeros(layers))
        if options.init == "random":
            nn.init.normal_(self.scalars)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool (B, L, D) to (B, D)."""
        return torch.einsum("bld,bl->bd", states, self.shares(states, mask))

    def shares(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each layer, (B, L); they do not depend on the text."""
        scalars = self.scalars.expand(states.shape[0], -1)
        return scalars.masked_fill(~mask, float("-inf")).softmax(dim=-1)


class LatentKeyPooling(nn.Module):
    """Tokens attend to learned latents, then a feed-forward, then the mean over tokens
    (NV-Embed, arXiv 2405.17428, section 3.1; ``latent_attention``).

    Parameters
    ----------
    width : D.
    """

    def __init__(self, width: int, options: PoolingOptions) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(options.latents, width))
        self.attend = CrossAttention(width, options)
        self._context = KeptResult()
        self.feedforward = FeedForward(width, options)
        nn.init.normal_(self.latents, std=1.0)
        if options.init == "identity":
            nn.init.zeros_(self.attend.output.weight)
            self.feedforward.initialise_silent()

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool (B, T, D) to (B, D)."""
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)
        projected = self.attend.project_queries(states)
        context = self._context(
            lambda: self.attend.project_context(self.latents.unsqueeze(0)), self
        )
        mixed = self.attend(projected, context, None) + states
        return mean(mixed + self.feedforward(mixed), mask)


class Whitened(nn.Module):
    """A pooling followed by ``(x - mean) @ matrix``, where x is its vector at length 1.

    Decoder states lie in a narrow cone: some directions carry most of every vector, whatever the
    text says. Taking off the mean and evening out the variances lets the rest count
    (BERT-whitening, arXiv 2103.15316). ``models.whiten`` fits both on texts.

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
