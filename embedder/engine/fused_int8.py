"""Fused decoder layers in int8, whose products are so fast that all else would take longer.

Sums become float32, are normed, rotated and rounded again in one pass by ``fused.c``. The results
are those of ``LeanLayer`` with int8 layers, but for a rounding step here and there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedder.engine.fused import FusedLayer, address, is_silu, load_functions
from embedder.engine.int8 import Int8Linear
from embedder.engine.lean import LeanLayer

__all__ = ["FusedInt8Layer", "fused_int8_layers"]


class FusedInt8Layer(FusedLayer):
    """One decoder layer for packed texts whose linear layers are int8 and joined."""

    def compute(self, states: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states (total, D) of those before it."""
        call, threads = self.functions, torch.get_num_threads()
        attention, feed = self.block.self_attn, self.block.mlp
        into_heads, into_gates = attention.q_proj.joined, feed.gate_proj.joined
        before, after = self.block.input_layernorm, self.block.post_attention_layernorm
        states = states.contiguous()
        n, width = states.shape

        rows, scales = _rounded(n, width)
        call.millpond_norm(
            *(address(states), address(before.weight), before.variance_epsilon),
            *(len(into_heads.rotation), n, width, address(rows), address(scales), threads),
        )
        heads = self._project_heads(_multiply(rows, into_heads), scales, into_heads, cos_sin)
        mixed = self.attend(*heads)

        inner = mixed.shape[1]
        rows, mixed_scales = _rounded(n, inner)
        call.millpond_round(address(mixed), n, inner, address(rows), address(mixed_scales), threads)
        sums, out = _multiply(rows, attention.o_proj), torch.empty_like(states)
        rows, scales = _rounded(n, width)
        call.millpond_add_norm(
            *(address(states), *_scaled(sums, mixed_scales, attention.o_proj)),
            *(address(after.weight), after.variance_epsilon, len(into_gates.rotation)),
            *(n, width, address(out), address(rows), address(scales), threads),
        )

        sums = _multiply(rows, into_gates)
        inner = sums.shape[1] // 2
        rows, gate_scales = _rounded(n, inner)
        call.millpond_swiglu(
            *(*_scaled(sums, scales, into_gates), len(feed.down_proj.rotation)),
            *(n, inner, address(rows), address(gate_scales), threads),
        )
        sums = _multiply(rows, feed.down_proj)
        call.millpond_add(
            *(address(out), *_scaled(sums, gate_scales, feed.down_proj)),
            *(n, width, address(out), threads),
        )
        return out

    def _project_heads(
        self, sums: Tensor, scales: Tensor, joined: Int8Linear, cos_sin: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (total, heads, width), of sums (total, all of them).

        Values come rotated (``rotate_values``), and so does what attention makes of them.
        """
        attention = self.block.self_attn
        n, width = len(sums), attention.head_dim
        heads, key_heads = (
            part.out_features // width for part in (attention.q_proj, attention.k_proj)
        )
        queries, keys, values = (
            torch.empty(n, count, width) for count in (heads, key_heads, key_heads)
        )
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        cos, sin = (each[0].contiguous() for each in cos_sin)
        self.functions.millpond_heads(
            *_scaled(sums, scales, joined),
            *(address(None if norm is None else norm.weight) for norm in norms),
            0.0 if norms[0] is None else norms[0].variance_epsilon,
            *(address(cos), address(sin), n, heads, key_heads, width),
            *(address(queries), address(keys), address(values), torch.get_num_threads()),
        )
        return queries, keys, values


def fused_int8_layers(layers: Sequence[LeanLayer]) -> tuple[FusedInt8Layer, ...]:
    """Return each layer fused; none where one of them has parts that are not int8 or not SiLU.

    Raises
    ------
    BuildError : the functions cannot be compiled here.
    """
    if not layers or not all(map(_is_int8, layers)):
        return ()
    functions = load_functions()
    return tuple(FusedInt8Layer(layer.block, functions) for layer in layers)


def _is_int8(layer: LeanLayer) -> bool:
    attention, feed = layer.block.self_attn, layer.block.mlp
    firsts, ends = (attention.q_proj, feed.gate_proj), (attention.o_proj, feed.down_proj)
    return (
        all(type(end) is Int8Linear for end in ends)
        and all(getattr(first, "joined", None) is not None for first in firsts)
        and is_silu(feed.act_fn)
    )


def _multiply(rows: Tensor, linear: Int8Linear) -> Tensor:
    return torch._int_mm(rows, linear.weight.T)


def _rounded(n: int, width: int) -> tuple[Tensor, Tensor]:
    """Return empty int8 rows and their scales."""
    return torch.empty(n, width, dtype=torch.int8), torch.empty(n, 1)


def _scaled(sums: Tensor, scales: Tensor, linear: Int8Linear) -> tuple[int | None, ...]:
    return address(sums), address(scales), address(linear.scale), address(linear.bias)
