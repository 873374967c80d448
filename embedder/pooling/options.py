"""The options of poolings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from retrieval.errors import UsageError

__all__ = ["PoolingOptions"]


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
        ``modules.Whitened``.
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
