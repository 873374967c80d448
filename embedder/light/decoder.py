"""A Llama decoder's forward pass over one text, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedder.light.linear import Linears
from embedder.light.tensors import Array

__all__ = ["DecoderShape", "LightDecoder"]


@dataclass(frozen=True)
class DecoderShape:
    """What a configuration says of a Llama decoder.

    Attributes
    ----------
    width : D of the states.
    layers : how many are computed.
    heads, key_heads : of attention; key_heads divides heads.
    head_width : of one head.
    epsilon : of the RMS norms.
    theta : of the rotary positions.
    """

    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    theta: float

    @classmethod
    def read(cls, config: Mapping[str, Any], layers: int | None) -> DecoderShape | None:
        """Return the shape of a config.json, None where it is not a plain Llama decoder."""
        rope = config.get("rope_parameters") or {}
        plain = (
            config.get("model_type") == "llama"
            and config.get("hidden_act") == "silu"
            and not config.get("attention_bias")
            and not config.get("mlp_bias")
            and rope.get("rope_type") == "default"
        )
        if not plain or (layers or 0) > config["num_hidden_layers"]:
            return None
        return cls(
            width=config["hidden_size"],
            layers=layers or config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            key_heads=config["num_key_value_heads"],
            head_width=config["head_dim"],
            epsilon=config["rms_norm_eps"],
            theta=rope["rope_theta"],
        )


class LightDecoder:
    """The decoder.

    Parameters
    ----------
    weights : of embeddings and norms, by the names of transformers' LlamaModel.
    linears : all other layers.
    """

    def __init__(
        self, shape: DecoderShape, weights: Mapping[str, Array], linears: Linears, *, causal: bool
    ) -> None:
        self._shape = shape
        self._weights = weights
        self._linear = linears
        self._causal = causal

    def __call__(self, ids: list[int]) -> Array:
        """Return the last layer's states (T, D) float32, after the final norm."""
        states = self._weights["embed_tokens.weight"][ids]
        turn = self._rotations(len(ids))
        for index in range(self._shape.layers):
            layer = f"layers.{index}"
            normed = self._norm(states, f"{layer}.input_layernorm")
            states = states + self._attend(normed, f"{layer}.self_attn", turn)
            normed = self._norm(states, f"{layer}.post_attention_layernorm")
            states = states + self._feed_forward(normed, f"{layer}.mlp")
        return self._norm(states, "norm")

    def _norm(self, states: Array, name: str) -> Array:
        mean = np.square(states).mean(axis=-1, keepdims=True)
        normed: Array = states / np.sqrt(mean + np.float32(self._shape.epsilon))
        return self._weights[f"{name}.weight"] * normed

    def _rotations(self, tokens: int) -> tuple[Array, Array]:
        """Return cosines and sines (T, 1, head width) of the rotary positions."""
        half = np.arange(0, self._shape.head_width, 2, dtype=np.float32) / self._shape.head_width
        speeds = (1.0 / np.float32(self._shape.theta) ** half).astype(np.float32)
        angles = np.outer(np.arange(tokens, dtype=np.float32), speeds)
        both = np.concatenate([angles, angles], axis=-1)[:, None, :]
        return np.cos(both), np.sin(both)

    def _attend(self, normed: Array, name: str, turn: tuple[Array, Array]) -> Array:
        shape, tokens = self._shape, len(normed)
        queries, keys, values = (
            self._linear(normed, f"{name}.{part}_proj").reshape(tokens, -1, shape.head_width)
            for part in ("q", "k", "v")
        )
        shared = shape.heads // shape.key_heads  # queries to one key head
        queries = _rotate(queries, turn).swapaxes(0, 1)
        keys = np.repeat(_rotate(keys, turn).swapaxes(0, 1), shared, axis=0)
        values = np.repeat(values.swapaxes(0, 1), shared, axis=0)
        scores = queries @ keys.swapaxes(1, 2) / np.sqrt(np.float32(shape.head_width))
        if self._causal:
            scores += np.triu(np.full((tokens, tokens), -np.inf, dtype=np.float32), 1)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ values
        return self._linear(mixed.swapaxes(0, 1).reshape(tokens, -1), f"{name}.o_proj")

    def _feed_forward(self, normed: Array, name: str) -> Array:
        gate = self._linear(normed, f"{name}.gate_proj")
        with np.errstate(over="ignore"):  # exp of a large number: the share is 0, as it should be
            gate = gate / (1 + np.exp(-gate))
        return self._linear(gate * self._linear(normed, f"{name}.up_proj"), f"{name}.down_proj")


def _rotate(heads: Array, turn: tuple[Array, Array]) -> Array:
    """Turn each pair (i, i + half) of (T, heads, head width) by its position's angle."""
    cosines, sines = turn
    first, second = np.split(heads, 2, axis=-1)
    turned = heads * cosines + np.concatenate([-second, first], axis=-1) * sines
    return turned.astype(np.float32, copy=False)
