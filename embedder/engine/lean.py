"""Decoder layers of the Llama kind, computed with fewer passes over memory.

transformers writes norms, RoPE and sums out as a row of tensors, each of which goes to memory
and back. On a CPU that is an eighth of the time of a layer in float32 and half of one in
int8. A ``LeanLayer`` computes the same from the layer's own weights: sums are part of a product,
RoPE rotates both halves in place, and int8 layers of one input share one product. ``probe`` finds
out by comparing which bases may be computed so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedder.engine.hadamard import block_of
from embedder.engine.int8 import Int8Linear, join_linears, rotate_outputs
from embedder.engine.packing import packed_attention

__all__ = ["LeanLayer", "add_linear", "lean_in_place", "lean_layers", "project"]

_BLOCK = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "act_fn"}


class LeanLayer:
    """One decoder layer for packed texts, on a CPU in float32 and for inference only.

    Parameters
    ----------
    block : a layer of transformers that ``lean_layers`` found to be of the right kind; its
        modules are read at each call, so adapters and int8 layers put into it later count.
    """

    def __init__(self, block: Any) -> None:
        self.block = block

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **settings: Any,
    ) -> Tensor:
        """Return the layer's states (1, total, D) of those before it, as the block does."""
        if position_embeddings is None or torch.is_autocast_enabled(hidden_states.device.type):
            settings["position_embeddings"] = position_embeddings
            whole = type(self.block).forward
            found: Tensor = whole(self.block, hidden_states, attention_mask, **settings)
            return found
        return self.compute(hidden_states[0], position_embeddings)[None]

    def compute(self, states: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states (total, D) of those before it.

        ``cos_sin`` are those of RoPE, (1, total, head width) each.
        """
        mixed = self._mix(_norm(states, self.block.input_layernorm), cos_sin)
        states = add_linear(states, mixed, self.block.self_attn.o_proj)
        feed = self.block.mlp
        gate, up = project(
            _norm(states, self.block.post_attention_layernorm), (feed.gate_proj, feed.up_proj)
        )
        return add_linear(states, feed.act_fn(gate).mul_(up), feed.down_proj)

    def rotate_values(self) -> tuple[nn.Linear, int]:
        """Let values come rotated from their layer, which makes the inputs of ``o_proj`` rotated.

        Attention mixes tokens, never the numbers of one head, so nothing else changes. Returns
        ``o_proj`` and the size of the blocks. For weights that become int8 at once.
        """
        attention = self.block.self_attn
        block = block_of(attention.head_dim)
        rotate_outputs(attention.v_proj, block)
        return attention.o_proj, block

    def join_int8(self) -> None:
        """Let int8 layers that read the same states share one product."""
        attention, feed = self.block.self_attn, self.block.mlp
        for parts in (
            (attention.q_proj, attention.k_proj, attention.v_proj),
            (feed.gate_proj, feed.up_proj),
        ):
            if all(type(part) is Int8Linear for part in parts):
                join_linears(parts)

    def _mix(self, normed: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Return attention's output, (total, heads x width), for normed states (total, D)."""
        attention = self.block.self_attn
        shape = (len(normed), -1, attention.head_dim)
        projected = project(normed, (attention.q_proj, attention.k_proj, attention.v_proj))
        queries, keys, values = (each.view(shape) for each in projected)
        if hasattr(attention, "q_norm"):
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        cos, sin = (each[0, :, None] for each in cos_sin)
        mixed, _ = packed_attention(
            attention,
            _rope(queries, cos, sin).transpose(0, 1)[None],
            _rope(keys, cos, sin).transpose(0, 1)[None],
            values.transpose(0, 1)[None],
            scaling=attention.scaling,
        )
        return mixed.reshape(len(normed), -1)


def lean_layers(blocks: Iterable[nn.Module]) -> tuple[LeanLayer, ...]:
    """Return each block as a LeanLayer; none where one of them has other parts than Llama's."""
    found = tuple(blocks)
    return tuple(map(LeanLayer, found)) if all(map(_is_llama, found)) else ()


@contextmanager
def lean_in_place(layers: Sequence[LeanLayer]) -> Iterator[None]:
    """Let the blocks compute by these layers inside the block of code."""
    before = [(layer.block, vars(layer.block).get("forward")) for layer in layers]
    for layer in layers:
        layer.block.forward = layer.forward
    try:
        yield
    finally:
        for block, forward in before:
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


def _is_llama(block: Any) -> bool:
    children = {name for name, _ in block.named_children()}
    if children != _BLOCK:
        return False
    attention = {name for name, _ in block.self_attn.named_children()}
    feed = {name for name, _ in block.mlp.named_children()}
    return (
        attention in (_ATTENTION, _ATTENTION | _HEAD_NORMS)
        and feed == _FEED_FORWARD
        and all(
            hasattr(norm, "variance_epsilon")
            for norm in (block.input_layernorm, block.post_attention_layernorm)
        )
        and all(hasattr(block.self_attn, name) for name in ("head_dim", "scaling"))
    )


def _norm(states: Tensor, norm: Any) -> Tensor:
    """Return states (total, D) over their root mean square, times the norm's weights."""
    lengths = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    factors = lengths.square_().div_(states.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    normed: Tensor = (states * factors).mul_(norm.weight)
    return normed


def _rope(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + half) of (total, heads, d) by the angle of its position."""
    half = heads.shape[-1] // 2
    rotated = heads * cos
    rotated[..., :half].addcmul_(heads[..., half:], sin[..., :half], value=-1.0)
    rotated[..., half:].addcmul_(heads[..., :half], sin[..., half:])
    return rotated


def project(states: Tensor, linears: Sequence[Any]) -> Sequence[Tensor]:
    """Return each linear layer's output, by one product where they are joined."""
    joined = getattr(linears[0], "joined", None)
    if joined is None:
        return [linear(states) for linear in linears]
    return torch.split(joined(states), [linear.out_features for linear in linears], dim=-1)


def add_linear(states: Tensor, inputs: Tensor, linear: Any) -> Tensor:
    """Return states plus the linear layer's output for the inputs."""
    plain = type(linear) is nn.Linear and not isinstance(linear.bias, Tensor)
    if plain:
        return torch.addmm(states, inputs, linear.weight.t())
    outputs: Tensor = linear(inputs)
    return outputs.add_(states)
