"""Decoder layers that go over memory once between two matrix products.

Norms, positions, gates and attention are rows of small operations in torch, each of which reads
and writes megabytes. ``fused.c`` does all of one step for a token while the token is in the CPU's
first cache. Its results are those of ``LeanLayer`` but for the order of sums.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from embedder.engine.fused_build import load_functions
from embedder.engine.lean import LeanLayer, add_linear, project
from embedder.engine.packing import attending_to, packed_attention

__all__ = ["FusedLayer", "address", "fused_layers", "is_silu"]

_LONGEST_ATTENDED = 512
"""Tokens of a text above which torch's attention is as fast as ours."""


class FusedLayer(LeanLayer):
    """One decoder layer for packed texts, on a CPU in float32 and for inference only.

    Parameters
    ----------
    functions : of ``fused.c``.
    """

    def __init__(self, block: Any, functions: ctypes.CDLL) -> None:
        super().__init__(block)
        self.functions = functions

    def compute(self, states: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states (total, D) of those before it."""
        attention, feed = self.block.self_attn, self.block.mlp
        normed = self._norm(states.contiguous(), self.block.input_layernorm)
        queries, keys, values = (
            each.reshape(len(normed), -1, attention.head_dim).contiguous()
            for each in project(normed, (attention.q_proj, attention.k_proj, attention.v_proj))
        )
        cosines, sines = (each[0].contiguous() for each in turns)
        for heads, norm in ((queries, "q_norm"), (keys, "k_norm")):
            self._place(heads, getattr(attention, norm, None), cosines, sines)
        states = add_linear(states, self.attend(queries, keys, values), attention.o_proj)
        normed = self._norm(states, self.block.post_attention_layernorm)
        gate, up = (each.contiguous() for each in project(normed, (feed.gate_proj, feed.up_proj)))
        self.functions.millpond_gate_float(
            address(gate), address(up), *gate.shape, torch.get_num_threads()
        )
        return add_linear(states, gate, feed.down_proj)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what attention makes of (total, heads, width): (total, heads x width)."""
        attention = self.block.self_attn
        batch, is_causal = attending_to()
        n, heads, width = queries.shape
        if batch.longest > _LONGEST_ATTENDED or width % 16:
            mixed, _ = packed_attention(
                attention,
                queries.transpose(0, 1)[None],
                keys.transpose(0, 1)[None],
                values.transpose(0, 1)[None],
                scaling=attention.scaling,
            )
            return mixed.reshape(n, -1).contiguous()
        mixed = torch.empty(n, heads * width)
        self.functions.millpond_attend(
            *(address(queries), address(keys), address(values)),
            *(address(batch.offsets), len(batch.offsets) - 1, heads, keys.shape[1], width),
            *(attention.scaling, is_causal, address(mixed), torch.get_num_threads()),
        )
        return mixed

    def _norm(self, states: Tensor, norm: Any) -> Tensor:
        normed = torch.empty_like(states)
        self.functions.millpond_norm_float(
            *(address(states), address(norm.weight), norm.variance_epsilon),
            *(*states.shape, address(normed), torch.get_num_threads()),
        )
        return normed

    def _place(self, heads: Tensor, norm: Any | None, cosines: Tensor, sines: Tensor) -> None:
        """Norm heads (total, count, width) where there is a norm, and turn them, in place."""
        self.functions.millpond_place(
            *(address(heads), address(None if norm is None else norm.weight)),
            *(0.0 if norm is None else norm.variance_epsilon, address(cosines), address(sines)),
            *(*heads.shape, torch.get_num_threads()),
        )


def fused_layers(layers: Sequence[LeanLayer]) -> tuple[FusedLayer, ...]:
    """Return each layer fused; none where one has another activation than SiLU.

    Raises
    ------
    BuildError : the functions cannot be compiled here.
    """
    if not layers or not all(is_silu(layer.block.mlp.act_fn) for layer in layers):
        return ()
    functions = load_functions()
    return tuple(FusedLayer(layer.block, functions) for layer in layers)


def is_silu(activation: Any) -> bool:
    """Whether a function of numbers is x / (1 + e ** -x)."""
    samples = torch.linspace(-4, 4, 9)
    return torch.allclose(activation(samples), torch.nn.functional.silu(samples))


def address(tensor: Tensor | None) -> int | None:
    """Return where a tensor's numbers are, for C; None is its null pointer."""
    return None if tensor is None else tensor.data_ptr()
