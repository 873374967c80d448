"""The poolings: functions without weights, then modules with weights, and their options.

All take states (B, S, D) float32 and a mask (B, S) bool, True at real tokens, and return (B, D)
float32, not yet normalised. S is the number of tokens, or of layers where one vector per layer is
read. Padding may stand on either side; a row has at least one real token. The arithmetic is float32
whatever the backbone's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.errors import UsageError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class PoolingOptions:
    """How a pooling is built; each pooling accepts the fields that it uses, all accept whiten.

    The paper (arXiv 2409.02727) fixed these for Mistral-7B at 768 latents, 32 heads of width
    2048 and a four-fold feed-forward, and varied none of them. The defaults here are in
    proportion to a small base.

    Attributes
    ----------
    latents : R, the number of learned query (or, in latent_attention, key) vectors.
    heads : attention heads; None gives as many as fit the base's width, D // head_width.
    head_width : width of one head.
    feedforward_multiple : inner width of the gated feed-forward in multiples of D.
    layers : of a pooling over layers. Which ones are read, 1 for the first decoder layer's output,
        L for the last one's (after the final norm); negative counts from the end; empty for all.
    layer_weights : multi_layer only. Whether the trainable (L, D) layer-weight matrix is added.
    match_layers : last_layer only. L more latents, so that it has exactly as many parameters as
        multi_layer with its layer-weight matrix.
    reads : last_layer only. "eos" attends to the EOS state alone, "tokens" to every token;
        "auto" is "eos" under causal and "tokens" under bidirectional attention, as the paper did.
    init : "identity" starts at a plain average of what is read, so that short training starts
        from a sensible vector; "random" is the paper's.
    seed : of the initial weights.
    whiten : whether a whitening follows, fitted by ``millpond whiten`` or trained; see
        ``registry.Whitened``.
    """

    latents: int = 64
    heads: int | None = None
    head_width: int = 64
    feedforward_multiple: int = 2
    layers: tuple[int, ...] = ()
    layer_weights: bool = True
    match_layers: bool = False
    reads: Literal["auto", "eos", "tokens"] = "auto"
    init: Literal["identity", "random"] = "identity"
    seed: int = 0
    whiten: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes below 1 and unknown words."""
        sizes = {
            "latents": self.latents,
            "heads": 1 if self.heads is None else self.heads,
            "head_width": self.head_width,
            "feedforward_multiple": self.feedforward_multiple,
        }
        for name, value in sizes.items():
            if value < 1:
                raise UsageError(f"pooling option {name} is {value}; it must be 1 or more.")
        for name, word, known in (
            ("reads", self.reads, ("auto", "eos", "tokens")),
            ("init", self.init, ("identity", "random")),
        ):
            if word not in known:
                raise UsageError(
                    f"pooling option {name} is {word!r}; expected one of {', '.join(known)}."
                )
        object.__setattr__(self, "layers", tuple(self.layers))

    def changed(self) -> dict[str, object]:
        """Return the fields that differ from their defaults."""
        default = PoolingOptions()
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        }


def first_token(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of each row's first real token."""
    first = mask.int().argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), first]


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
        """Return the attention weights of ``forward``, (B, heads, Q, S); rows sum to 1."""
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
        """Return the attention weight of each place, (B, S), the mean over heads and latents."""
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
        """Return the weight of each layer, (B, L), the same for every text."""
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
