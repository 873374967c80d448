"""Linear layers in numpy: in float32 with LoRA beside the weights, or in int8 with LoRA in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedder.engine.hadamard import block_of, hadamard
from embedder.light.tensors import Array

__all__ = ["FloatLinears", "Int8Linears", "Linears", "LowRank"]

_LARGEST = np.float32(127)
_SMALLEST = np.float32(1e-12)


@dataclass(frozen=True)
class LowRank:
    """LoRA weights by module name, A (rank, in) and B (out, rank), and what scales B A."""

    weights: Mapping[str, tuple[Array, Array]]
    scale: float


class Linears(Protocol):
    """All linear layers of a model."""

    def __call__(self, states: Array, name: str) -> Array:
        """Return what the layer of this name makes of (T, in): (T, out) float32."""


class FloatLinears:
    """Linear layers in float32; ``weights`` has the names of transformers' LlamaModel."""

    def __init__(self, weights: Mapping[str, Array], lora: LowRank) -> None:
        self._weights = weights
        self._lora = lora

    def __call__(self, states: Array, name: str) -> Array:
        """Return what the layer of this name makes of (T, in): (T, out) float32."""
        out: Array = states @ self._weights[f"{name}.weight"].T
        if name in self._lora.weights:
            down, up = self._lora.weights[name]
            out += self._lora.scale * ((states @ down.T) @ up.T)
        return out


class Int8Linears:
    """What ``engine.int8`` computes, on any CPU: the rounded numbers are kept as float32.

    Sums of their products are whole numbers below 2^25, which float32 holds to the last digit but
    one. Each layer is rounded when it is first used. As ``engine.lean`` does, values come turned
    from their layer, so that the inputs of ``o_proj`` are turned already.

    Parameters
    ----------
    head_width : of one attention head.
    """

    def __init__(self, weights: Mapping[str, Array], lora: LowRank, head_width: int) -> None:
        self._weights = weights
        self._lora = lora
        self._head_block = block_of(head_width)
        self._rounded: dict[str, tuple[Array, Array]] = {}

    def __call__(self, states: Array, name: str) -> Array:
        """Return what the layer of this name makes of (T, in): (T, out) float32."""
        if name not in self._rounded:
            self._rounded[name] = self._round(name)
        weights, scales = self._rounded[name]
        if not name.endswith("o_proj"):
            states = _turn(states, block_of(states.shape[1]))
        rows, row_scales = _round_rows(states)
        out: Array = (rows @ weights.T) * row_scales * scales.T
        return out

    def _round(self, name: str) -> tuple[Array, Array]:
        weights = self._weights[f"{name}.weight"]
        if name in self._lora.weights:
            down, up = self._lora.weights[name]
            weights = weights + np.float32(self._lora.scale) * (up @ down)
        if name.endswith("v_proj"):
            weights = _turn(weights.T, self._head_block).T
        block = self._head_block if name.endswith("o_proj") else block_of(weights.shape[1])
        return _round_rows(_turn(weights, block))


def _turn(rows: Array, block: int) -> Array:
    """Return (N, in), each block of a row times the Hadamard matrix."""
    blocks = np.ascontiguousarray(rows).reshape(-1, block)
    turned: Array = (blocks @ hadamard(block)).reshape(rows.shape)
    return turned


def _round_rows(rows: Array) -> tuple[Array, Array]:
    """Return (N, in) as whole numbers up to 127, and what a row is multiplied with, (N, 1)."""
    scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), _SMALLEST) / _LARGEST
    return np.rint(rows * (1 / scales)), scales
