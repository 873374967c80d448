"""The forward pass of a decoder of the Llama kind over one text, in numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedder.engine.hadamard import block_of, hadamard

Array: TypeAlias = npt.NDArray[np.float32]

_LONGEST_HEADER = 100_000_000  # what the format allows
_KINDS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class Tensors(Mapping[str, Array]):
    """The tensors of safetensors files by name, float32, of any shape.

    Files are mapped, not read: float32 tensors are views that cost no memory of their own. Names
    are those inside of the decoder, without the "model." that a model for text puts before.

    Raises
    ------
    ValueError, OSError, KeyError : no safetensors file of float32, float16 or bfloat16.
    """

    def __init__(self, *paths: Path) -> None:
        self._places: dict[str, tuple[npt.NDArray[np.uint8], Any]] = {}
        for path in paths:
            file = np.memmap(path, dtype=np.uint8, mode="r")
            size = int.from_bytes(file[:8].tobytes(), "little")
            if size > min(_LONGEST_HEADER, len(file) - 8):
                raise ValueError(f"{path} is cut short, or no safetensors file")
            header = json.loads(file[8 : 8 + size].tobytes())
            header.pop("__metadata__", None)
            for name, entry in header.items():
                self._places[name.removeprefix("model.")] = (file[8 + size :], entry)

    def __getitem__(self, name: str) -> Array:
        data, entry = self._places[name]
        first, last = entry["data_offsets"]
        raw: Any = data[first:last].view(_KINDS[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        found: Array = raw.astype(np.float32, copy=False).reshape(entry["shape"])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


_LARGEST = np.float32(127)
_SMALLEST = np.float32(1e-12)


@dataclass(frozen=True)
class LowRank:
    """LoRA weights by module name, A (rank, in) and B (out, rank), and what scales B A."""

    weights: Mapping[str, tuple[Array, Array]]
    scale: float


Linears: TypeAlias = Callable[[Array, str], Array]
"""All linear layers of a model: (T, in) and the name of a layer to its output (T, out)."""


class FloatLinears:
    """Linear layers in float32, with a bias where there is one; names as transformers has them."""

    def __init__(self, weights: Mapping[str, Array], lora: LowRank) -> None:
        self._weights = weights
        self._lora = lora

    def __call__(self, states: Array, name: str) -> Array:
        """Return the output (T, out) float32 of the layer of this name for (T, in)."""
        out: Array = states @ self._weights[f"{name}.weight"].T
        if name in self._lora.weights:
            down, up = self._lora.weights[name]
            out += self._lora.scale * ((states @ down.T) @ up.T)
        return _add_bias(out, self._weights, name)


class Int8Linears:
    """What ``engine.int8`` computes, on any CPU: the rounded numbers are kept as float32.

    Sums of their products are whole numbers below 2^25, which float32 holds to the last digit but
    one. Each layer is rounded when it is first used. As in ``engine.speed``, values come
    rotated from their layer, so that the inputs of ``o_proj`` are rotated already.

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
        """Return the output (T, out) float32 of the layer of this name for (T, in)."""
        if name not in self._rounded:
            self._rounded[name] = self._round(name)
        weights, scales = self._rounded[name]
        if not name.endswith("o_proj"):
            states = _rotate_blocks(states, block_of(states.shape[1]))
        rows, row_scales = _round_rows(states)
        out: Array = (rows @ weights.T) * row_scales * scales.T
        bias = f"{name}.bias"
        if not name.endswith("v_proj") or bias not in self._weights:
            return _add_bias(out, self._weights, name)
        return out + _rotate_blocks(self._weights[bias][None], self._head_block)

    def _round(self, name: str) -> tuple[Array, Array]:
        weights = self._weights[f"{name}.weight"]
        if name in self._lora.weights:
            down, up = self._lora.weights[name]
            weights = weights + np.float32(self._lora.scale) * (up @ down)
        if name.endswith("v_proj"):
            weights = _rotate_blocks(weights.T, self._head_block).T
        block = self._head_block if name.endswith("o_proj") else block_of(weights.shape[1])
        return _round_rows(_rotate_blocks(weights, block))


def _add_bias(out: Array, weights: Mapping[str, Array], name: str) -> Array:
    bias = f"{name}.bias"
    return out + weights[bias] if bias in weights else out


def _rotate_blocks(rows: Array, block: int) -> Array:
    """Return (N, in), each block of a row times the Hadamard matrix."""
    blocks = np.ascontiguousarray(rows).reshape(-1, block)
    rotated: Array = (blocks @ hadamard(block)).reshape(rows.shape)
    return rotated


def _round_rows(rows: Array) -> tuple[Array, Array]:
    """Return (N, in) as whole numbers up to 127, and the scale of each row, (N, 1)."""
    scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), _SMALLEST) / _LARGEST
    return np.rint(rows * (1 / scales)), scales


_KNOWN = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class DecoderShape:
    """What a configuration says of a decoder of the Llama kind.

    Attributes
    ----------
    width : D of the states.
    layers : how many are computed.
    heads, key_heads : of attention; key_heads divides heads.
    head_width : of one head.
    epsilon : of the RMS norms.
    theta : of RoPE.
    window : how many tokens each one sees, itself included; None for all before it.
    """

    width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    epsilon: float
    theta: float
    window: int | None

    @classmethod
    def read(cls, config: Mapping[str, Any], layers: int | None) -> DecoderShape | None:
        """Return the shape of a config.json, None where it is more than Llama, Mistral or Qwen."""
        older: dict[str, Any] = {"rope_type": "default", "rope_theta": config.get("rope_theta")}
        rope = config.get("rope_parameters") or (None if config.get("rope_scaling") else older)
        plain = (
            config.get("model_type") in _KNOWN
            and config.get("hidden_act") == "silu"
            and rope is not None
            and rope.get("rope_type") == "default"
            and rope.get("partial_rotary_factor", 1.0) == 1.0
        )
        if not plain or rope is None or (layers or 0) > config["num_hidden_layers"]:
            return None
        heads = config["num_attention_heads"]
        slides = config.get("use_sliding_window", config["model_type"] == "mistral")
        return cls(
            width=config["hidden_size"],
            layers=layers or config["num_hidden_layers"],
            heads=heads,
            key_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or config["hidden_size"] // heads,
            epsilon=config["rms_norm_eps"],
            theta=rope["rope_theta"],
            window=config.get("sliding_window") if slides else None,
        )


class LightDecoder:
    """The decoder.

    Parameters
    ----------
    weights : of embeddings and norms, by the names that transformers gives them in such a model.
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
        cos_sin = self._cos_sin(len(ids))
        for index in range(self._shape.layers):
            layer = f"layers.{index}"
            normed = self._norm(states, f"{layer}.input_layernorm")
            states = states + self._attend(normed, f"{layer}.self_attn", cos_sin)
            normed = self._norm(states, f"{layer}.post_attention_layernorm")
            states = states + self._feed_forward(normed, f"{layer}.mlp")
        return self._norm(states, "norm")

    def _norm(self, states: Array, name: str) -> Array:
        mean = np.square(states).mean(axis=-1, keepdims=True)
        normed: Array = states / np.sqrt(mean + np.float32(self._shape.epsilon))
        return self._weights[f"{name}.weight"] * normed

    def _cos_sin(self, tokens: int) -> tuple[Array, Array]:
        """Return cos and sin of RoPE, (T, 1, head width) each."""
        half = np.arange(0, self._shape.head_width, 2, dtype=np.float32) / self._shape.head_width
        speeds = (1.0 / np.float32(self._shape.theta) ** half).astype(np.float32)
        angles = np.outer(np.arange(tokens, dtype=np.float32), speeds)
        both = np.concatenate([angles, angles], axis=-1)[:, None, :]
        return np.cos(both), np.sin(both)

    def _attend(self, normed: Array, name: str, cos_sin: tuple[Array, Array]) -> Array:
        shape, tokens = self._shape, len(normed)
        queries, keys, values = (
            self._linear(normed, f"{name}.{part}_proj").reshape(tokens, -1, shape.head_width)
            for part in ("q", "k", "v")
        )
        if f"{name}.q_norm.weight" in self._weights:
            queries = self._norm(queries, f"{name}.q_norm")
            keys = self._norm(keys, f"{name}.k_norm")
        shared = shape.heads // shape.key_heads  # queries to one key head
        queries = _rope(queries, cos_sin).swapaxes(0, 1)
        keys = np.repeat(_rope(keys, cos_sin).swapaxes(0, 1), shared, axis=0)
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


def _rope(heads: Array, cos_sin: tuple[Array, Array]) -> Array:
    """Rotate each pair (i, i + half) of (T, heads, head width) by the angle of its position."""
    cos, sin = cos_sin
    first, second = np.split(heads, 2, axis=-1)
    rotated = heads * cos + np.concatenate([-second, first], axis=-1) * sin
    return rotated.astype(np.float32, copy=False)
