"""Decoder layers in int8, by one pass over memory between two products: what ``fused.c`` does.

Products of int8 rows are so fast that norms, RoPE, SwiGLU and sums, each a row of tensors that go
to memory and back, would take longer. The libraries were compiled when millpond was installed, one
for CPUs with AVX2 and one for those with AVX-512.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedder.engine.int8 import Int8Linear, join_linears
from embedder.engine.packing import attending_to, packed_attention

FOLDER = Path(__file__).parent
SOURCES = ("fused.c", "fused.h", "rows.h")

_LONGEST_ATTENDED = 512
"""The text length, in tokens, from which torch's attention is as fast as ours."""

_LANES = 16
_CAPABILITIES = ("AVX2", "AVX512")
_DECLARATION = re.compile(r"^(?:void|const char \*) ?(millpond_\w+)\(([^)]*)\);", re.MULTILINE)
_KINDS = {"float": ctypes.c_float, "int64_t": ctypes.c_int64}


class UnavailableError(Exception):
    """The library cannot be used here; the message says why in a few words."""


def load_functions() -> ctypes.CDLL:
    """Return the library for this CPU, each function with the arguments that ``fused.h`` declares.

    It runs on torch's own OpenMP threads, so torch has to be imported before.

    Raises
    ------
    UnavailableError : it was not compiled, is another version's, or cannot be loaded.
    """
    return _load(torch.backends.cpu.get_cpu_capability())


@cache
def _load(capability: str) -> ctypes.CDLL:
    if capability not in _CAPABILITIES:
        raise UnavailableError("this CPU has no AVX2")
    library = FOLDER / f"libfused-{capability.lower()}.so"
    sources = [(FOLDER / name).read_bytes() for name in SOURCES]
    try:
        loaded = ctypes.CDLL(str(library))
        loaded.millpond_sources.restype = ctypes.c_char_p
        made_of = loaded.millpond_sources().decode()
    except (OSError, AttributeError) as error:
        if not library.exists():
            raise UnavailableError("millpond was installed without a C compiler") from error
        raise UnavailableError(f"{library.name} cannot be loaded: {error}") from error
    if made_of != hashlib.sha256(b"".join(sources)).hexdigest():
        raise UnavailableError(f"{library.name} is of another version; install millpond again")
    for name, arguments in _DECLARATION.findall(sources[1].decode()):
        function = getattr(loaded, name)
        kinds = [each.split() for each in arguments.split(",") if each != "void"]
        function.argtypes = [
            ctypes.c_void_p if words[-1].startswith("*") else _KINDS[words[0]] for words in kinds
        ]
    return loaded


class PanelProduct:
    """Exact products of int8 for CPUs without VNNI, by AVX2.

    Its weights are int16 in panels of 16 outputs, as ``millpond_multiply`` takes them.
    """

    def __init__(self, functions: ctypes.CDLL) -> None:
        self._multiply = functions.millpond_multiply

    @staticmethod
    def takes(linear: nn.Linear) -> bool:
        """Whether a layer has outputs for whole panels, and inputs in pairs."""
        return linear.out_features % 16 == 0 and linear.in_features % 2 == 0

    def pack(self, weight: Tensor) -> Tensor:
        """Return (out, in) int16, every 16 rows a panel."""
        outs, depth = weight.shape
        panels = weight.to(torch.int16).view(outs // 16, 16, depth // 2, 2)
        return panels.transpose(1, 2).reshape(outs, depth)

    def __call__(self, rows: Tensor, weight: Tensor) -> Tensor:
        """Return (N, out) int32 for rows (N, in) int8."""
        (n, depth), outs = rows.shape, len(weight)
        wide = rows.to(torch.int16)
        sums = torch.empty(n, outs, dtype=torch.int32)
        arrays = _address(wide), _address(weight)
        self._multiply(*arrays, n, depth, outs, _address(sums), torch.get_num_threads())
        return sums


class FusedLayer(nn.Module):
    """One decoder layer whose linear layers are int8; in the place of the block it was made of.

    Packed texts are computed by ``fused.c``, all else by the block itself.

    Parameters
    ----------
    block : of transformers, of the Llama kind (``can_be_fused``).
    """

    def __init__(self, block: Any, functions: ctypes.CDLL) -> None:
        super().__init__()
        self.block = block
        self.functions = functions
        attention, feed = block.self_attn, block.mlp
        self.into_heads = join_linears((attention.q_proj, attention.k_proj, attention.v_proj))
        self.into_gates = join_linears((feed.gate_proj, feed.up_proj))
        if hasattr(block, "attention_type"):  # the model asks its layers for it
            self.attention_type = block.attention_type

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **settings: Any,
    ) -> Tensor:
        """Return the layer's states (B, T, D) of those before it, packed (1, total, D)."""
        packed = attending_to() is not None and position_embeddings is not None
        if not packed or torch.is_autocast_enabled(hidden_states.device.type):
            settings |= {"position_embeddings": position_embeddings}
            found: Tensor = self.block(hidden_states, attention_mask, **settings)
            return found
        assert position_embeddings is not None
        return self.compute(hidden_states[0], position_embeddings)[None]

    def compute(self, states: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states (total, D) of those before it.

        ``cos_sin`` are those of RoPE, (1, total, head width) each.
        """
        attention, feed = self.block.self_attn, self.block.mlp
        before, after = self.block.input_layernorm, self.block.post_attention_layernorm
        states = states.contiguous()
        n, width = states.shape

        rows, scales = _rounded(n, width)
        self._call(
            "norm",
            *(_address(states), _address(before.weight), before.variance_epsilon),
            *(len(self.into_heads.rotation), n, width, _address(rows), _address(scales)),
            scratch=width,
        )
        mixed = self._attend(*self._project_heads(rows, scales, cos_sin))

        inner = mixed.shape[1]
        rows, mixed_scales = _rounded(n, inner)
        self._call("round", _address(mixed), n, inner, _address(rows), _address(mixed_scales))
        sums, out = attention.o_proj.multiply(rows), torch.empty_like(states)
        rows, scales = _rounded(n, width)
        self._call(
            "add_norm",
            *(_address(states), *_scaled(sums, mixed_scales, attention.o_proj)),
            *(_address(after.weight), after.variance_epsilon, len(self.into_gates.rotation)),
            *(n, width, _address(out), _address(rows), _address(scales)),
            scratch=width,
        )

        sums = self.into_gates.multiply(rows)
        inner = sums.shape[1] // 2
        rows, gate_scales = _rounded(n, inner)
        self._call(
            "swiglu",
            *(*_scaled(sums, scales, self.into_gates), len(feed.down_proj.rotation)),
            *(n, inner, _address(rows), _address(gate_scales)),
            scratch=2 * inner,
        )
        sums = feed.down_proj.multiply(rows)
        self._call(
            "add",
            *(_address(out), *_scaled(sums, gate_scales, feed.down_proj)),
            *(n, width, _address(out)),
        )
        return out

    def _call(self, name: str, *given: Any, scratch: int = 0) -> None:
        """Call a function of the library, which needs that many floats for each thread."""
        threads = torch.get_num_threads()
        memory = torch.empty(threads, scratch)  # held until the function has returned
        own = (_address(memory), scratch) if scratch else ()
        getattr(self.functions, f"millpond_{name}")(*given, *own, threads)

    def _project_heads(
        self, rows: Tensor, scales: Tensor, cos_sin: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (total, heads, width), of rounded rows (total, D).

        Values come rotated (``rotate_values``), and so does what attention makes of them.
        """
        attention = self.block.self_attn
        n, width = len(rows), attention.head_dim
        heads, key_heads = (
            part.out_features // width for part in (attention.q_proj, attention.k_proj)
        )
        queries, keys, values = (
            torch.empty(n, count, width) for count in (heads, key_heads, key_heads)
        )
        norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
        cos, sin = (each[0].contiguous() for each in cos_sin)
        sums = self.into_heads.multiply(rows)
        self._call(
            "heads",
            *_scaled(sums, scales, self.into_heads),
            *(_address(None if norm is None else norm.weight) for norm in norms),
            0.0 if norms[0] is None else norms[0].variance_epsilon,
            *(_address(cos), _address(sin), n, heads, key_heads, width),
            *(_address(queries), _address(keys), _address(values)),
        )
        return queries, keys, values

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return attention's output, (total, heads x width), for (total, heads, width)."""
        attention, now = self.block.self_attn, attending_to()
        assert now is not None
        batch, is_causal = now
        n, heads, width = queries.shape
        if batch.longest > _LONGEST_ATTENDED or width % _LANES:
            mixed, _ = packed_attention(
                attention,
                queries.transpose(0, 1)[None],
                keys.transpose(0, 1)[None],
                values.transpose(0, 1)[None],
                scaling=attention.scaling,
            )
            return mixed.reshape(n, -1).contiguous()
        mixed = torch.empty(n, heads * width)
        columns = -(-batch.longest // _LANES) * _LANES
        self._call(
            "attend",
            *(_address(queries), _address(keys), _address(values)),
            *(_address(batch.offsets), len(batch.offsets) - 1, heads, keys.shape[1], width),
            *(attention.scaling, is_causal, _address(mixed)),
            scratch=(width + 8) * columns,
        )
        return mixed


_BLOCK = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_HEAD_NORMS = {"q_norm", "k_norm"}
_FEED_FORWARD = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def can_be_fused(block: Any) -> bool:
    """Whether a decoder layer has the parts of Llama's, maybe with QK-norm, and SiLU.

    Whether it computes the same with them is found out by comparing.
    """
    if _parts(block) != _BLOCK:
        return False
    attention, feed = block.self_attn, block.mlp
    norms = (block.input_layernorm, block.post_attention_layernorm)
    return (
        _parts(attention) in (_ATTENTION, _ATTENTION | _HEAD_NORMS)
        and _parts(feed) == _FEED_FORWARD
        and all(hasattr(norm, "variance_epsilon") for norm in norms)
        and all(hasattr(attention, name) for name in ("head_dim", "scaling"))
        and _shares_biases(attention.q_proj, attention.k_proj, attention.v_proj)
        and _shares_biases(feed.gate_proj, feed.up_proj)
        and _is_silu(feed.act_fn)
    )


def _parts(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def _shares_biases(*linears: Any) -> bool:
    return len({linear.bias is None for linear in linears}) == 1


def _is_silu(activation: Any) -> bool:
    samples = torch.linspace(-4, 4, 9)
    return torch.allclose(activation(samples), nn.functional.silu(samples))


def _rounded(n: int, width: int) -> tuple[Tensor, Tensor]:
    """Return empty int8 rows and their scales."""
    return torch.empty(n, width, dtype=torch.int8), torch.empty(n, 1)


def _scaled(sums: Tensor, scales: Tensor, linear: Int8Linear) -> tuple[int | None, ...]:
    return _address(sums), _address(scales), _address(linear.scale), _address(linear.bias)


def _address(tensor: Tensor | None) -> int | None:
    """Return the address of a tensor's numbers for C; None for its null pointer."""
    return None if tensor is None else tensor.data_ptr()
