"""Decoder layers in int8 that go over memory once between two products.

A product of int8 matrices is so fast that what lies between two of them takes longer: sums become
float32, are normed, turned, rounded again, each a pass over megabytes. ``fused.c`` does all of it
for a token while the token is in the CPU's first cache. Its results are those of ``LeanLayer`` but
for the order of sums, so for a rounding step here and there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from embedder.engine.fused_build import load_functions
from embedder.engine.int8 import Int8Linear
from embedder.engine.lean import LeanLayer
from embedder.engine.packing import attending_to, packed_attention

__all__ = ["FusedLayer", "fused_layers"]

_LONGEST_ATTENDED = 512
"""Tokens of a text above which torch's attention is as fast as ours."""


class FusedLayer(LeanLayer):
    """One decoder layer for packed texts whose linear layers are int8 and joined.

    Parameters
    ----------
    functions : of ``fused.c``.
    """

    def __init__(self, block: Any, functions: ctypes.CDLL) -> None:
        super().__init__(block)
        self._functions = functions

    def compute(self, states: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states (total, D) of those before it."""
        call, threads = self._functions, torch.get_num_threads()
        attention, feed = self.block.self_attn, self.block.mlp
        into_heads, into_gates = attention.q_proj.joined, feed.gate_proj.joined
        before, after = self.block.input_layernorm, self.block.post_attention_layernorm
        states = states.contiguous()
        n, width = states.shape

        rows, scales = _rounded(n, width)
        call.millpond_norm(
            *(_at(states), _at(before.weight), before.variance_epsilon, len(into_heads.turn)),
            *(n, width, _at(rows), _at(scales), threads),
        )
        heads = self._project_heads(_multiply(rows, into_heads), scales, into_heads, turns)
        mixed = self._attend(*heads)

        n, inner = mixed.shape
        rows, mixed_scales = _rounded(n, inner)
        call.millpond_round(_at(mixed), n, inner, _at(rows), _at(mixed_scales), threads)
        sums, out = _multiply(rows, attention.o_proj), torch.empty_like(states)
        rows, scales = _rounded(n, width)
        call.millpond_add_norm(
            *(_at(states), *_scaled(sums, mixed_scales, attention.o_proj)),
            *(_at(after.weight), after.variance_epsilon, len(into_gates.turn)),
            *(n, width, _at(out), _at(rows), _at(scales), threads),
        )

        sums = _multiply(rows, into_gates)
        inner = sums.shape[1] // 2
        rows, gate_scales = _rounded(n, inner)
        call.millpond_gate(
            *(*_scaled(sums, scales, into_gates), len(feed.down_proj.turn)),
            *(n, inner, _at(rows), _at(gate_scales), threads),
        )
        sums = _multiply(rows, feed.down_proj)
        call.millpond_add(
            *(_at(out), *_scaled(sums, gate_scales, feed.down_proj)),
            *(n, width, _at(out), threads),
        )
        return out

    def _project_heads(
        self, sums: Tensor, scales: Tensor, joined: Int8Linear, turns: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (1, heads, total, width), of sums (total, all of them).

        Values come turned (``turn_values``), so what attention makes of them is, too.
        """
        attention = self.block.self_attn
        n, width = len(sums), attention.head_dim
        heads, key_heads = (
            part.out_features // width for part in (attention.q_proj, attention.k_proj)
        )
        queries, keys, values = (
            torch.empty(1, count, n, width) for count in (heads, key_heads, key_heads)
        )
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        cosines, sines = (each[0].contiguous() for each in turns)
        self._functions.millpond_heads(
            *_scaled(sums, scales, joined),
            *(_at(None if norm is None else norm.weight) for norm in norms),
            0.0 if norms[0] is None else norms[0].variance_epsilon,
            *(_at(cosines), _at(sines), n, heads, key_heads, width),
            *(_at(queries), _at(keys), _at(values), torch.get_num_threads()),
        )
        return queries, keys, values

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what attention makes of the heads: (total, heads x width)."""
        attention = self.block.self_attn
        batch, is_causal = attending_to()
        _, heads, n, width = queries.shape
        if batch.longest > _LONGEST_ATTENDED or width % 16:
            scaling = attention.scaling
            mixed, _ = packed_attention(attention, queries, keys, values, scaling=scaling)
            return mixed.reshape(n, -1).contiguous()
        mixed = torch.empty(n, heads * width)
        self._functions.millpond_attend(
            *(_at(queries), _at(keys), _at(values), _at(batch.offsets), len(batch.offsets) - 1),
            *(n, heads, keys.shape[1], width, attention.scaling, is_causal),
            *(_at(mixed), torch.get_num_threads()),
        )
        return mixed


def fused_layers(layers: Sequence[LeanLayer]) -> tuple[FusedLayer, ...]:
    """Return each layer fused; none where one of them has parts that are not int8 or not SiLU.

    Raises
    ------
    BuildError : the functions cannot be compiled here.
    """
    if not layers or not all(map(_is_for_this, layers)):
        return ()
    functions = load_functions()
    return tuple(FusedLayer(layer.block, functions) for layer in layers)


def _is_for_this(layer: LeanLayer) -> bool:
    attention, feed = layer.block.self_attn, layer.block.mlp
    ends = (attention.o_proj, feed.down_proj)
    if any(type(end) is not Int8Linear for end in ends):
        return False
    if any(getattr(first, "joined", None) is None for first in (attention.q_proj, feed.gate_proj)):
        return False
    samples = torch.linspace(-4, 4, 9)
    return torch.allclose(feed.act_fn(samples), torch.nn.functional.silu(samples))


def _multiply(rows: Tensor, linear: Int8Linear) -> Tensor:
    return torch._int_mm(rows, linear.weight.T)


def _rounded(n: int, width: int) -> tuple[Tensor, Tensor]:
    """Return room for int8 rows and their scales."""
    return torch.empty(n, width, dtype=torch.int8), torch.empty(n, 1)


def _scaled(sums: Tensor, scales: Tensor, linear: Int8Linear) -> tuple[int | None, ...]:
    return _at(sums), _at(scales), _at(linear.scale), _at(linear.bias)


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
