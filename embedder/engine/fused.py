"""Decoder layers by the C functions of ``fused.c``, compiled for this machine on first use."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from embedder.engine.lean import LeanLayer, add_linear, project
from embedder.engine.packing import attending_to, packed_attention
from embedder.models.cache import cache_folder, keep

__all__ = ["BuildError", "FusedLayer", "address", "fused_layers", "is_silu", "load_functions"]

SOURCE = Path(__file__).with_name("fused.c")
HEADER = Path(__file__).with_name("fused_rows.h")

_FLAGS = (
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
)
_SECONDS = 60

_LONGEST_ATTENDED = 512
"""The text length, in tokens, from which torch's attention is as fast as ours."""

_POINTER, _FLOAT, _LONG, _INT = ctypes.c_void_p, ctypes.c_float, ctypes.c_long, ctypes.c_int
_SCALED = [_POINTER] * 4  # sums, row scales, column scales, bias
_ROUNDED = [_POINTER] * 2  # rows, scales
_NORM = [_POINTER, _FLOAT]  # gains, epsilon
_ARGUMENTS = {
    "millpond_norm_float": [_POINTER, *_NORM, *[_LONG] * 2, _POINTER, _INT],
    "millpond_norm_rope": [_POINTER, *_NORM, *[_POINTER] * 2, *[_LONG] * 3, _INT],
    "millpond_swiglu_float": [*[_POINTER] * 2, *[_LONG] * 2, _INT],
    "millpond_attend": [*[_POINTER] * 4, *[_LONG] * 4, _FLOAT, _INT, _POINTER, _INT],
    "millpond_norm": [_POINTER, *_NORM, *[_LONG] * 3, *_ROUNDED, _INT],
    "millpond_add": [_POINTER, *_SCALED, *[_LONG] * 2, _POINTER, _INT],
    "millpond_add_norm": [_POINTER, *_SCALED, *_NORM, *[_LONG] * 3, _POINTER, *_ROUNDED, _INT],
    "millpond_heads": [
        *[*_SCALED, _POINTER, *_NORM, *[_POINTER] * 2],
        *[*[_LONG] * 4, *[_POINTER] * 3, _INT],
    ],
    "millpond_round": [_POINTER, *[_LONG] * 2, *_ROUNDED, _INT],
    "millpond_swiglu": [*_SCALED, *[_LONG] * 3, *_ROUNDED, _INT],
}


class BuildError(Exception):
    """The functions cannot be compiled here; the message says why in a few words."""


@cache
def load_functions() -> ctypes.CDLL:
    """Return the functions, compiled by ``$CC`` or ``cc`` unless the cache folder has them.

    What is cached is for this source, compiler and CPU; a folder that cannot be written costs a
    second for each process. They run on torch's own OpenMP threads, so they are not linked with
    another OpenMP library, and torch has to be imported before.

    Raises
    ------
    BuildError : not Linux on x86-64, no compiler, or one that fails.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BuildError(f"only for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C compiler {compiler[0]!r}")
    key = hashlib.sha256("\n".join([*_FLAGS, _run([*compiler, "--version"]), _cpu()]).encode())
    key.update(SOURCE.read_bytes() + HEADER.read_bytes())
    kept = cache_folder() / "compiled" / f"fused-{key.hexdigest()[:16]}.so"
    try:
        return _load(kept)
    except OSError:  # not there yet, or damaged
        pass
    with TemporaryDirectory(prefix="millpond-compile-") as folder:
        unit, library = Path(folder) / "fused.o", Path(folder) / "fused.so"
        _run([*compiler, *_FLAGS, "-c", str(SOURCE), "-o", str(unit)])
        # Without -fopenmp: what the unit needs of OpenMP is torch's, which is there already.
        _run([*compiler, "-shared", str(unit), "-o", str(library)])
        try:
            loaded = _load(library)
        except OSError as error:
            raise BuildError(f"what was compiled cannot be loaded: {error}") from error
        keep(kept, library.read_bytes())
    return loaded


def _load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    for name, arguments in _ARGUMENTS.items():
        try:
            function = getattr(loaded, name)
        except AttributeError as error:
            raise OSError(f"it has no {name}") from error
        function.argtypes, function.restype = arguments, None
    return loaded


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BuildError(f"{command[0]} ended with {done.returncode}: {lines[0]}")
    return done.stdout


def _cpu() -> str:
    """Return the CPU's model and instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        next((line for line in lines if line.startswith(name)), "")
        for name in ("model name", "flags")
    )


class FusedLayer(LeanLayer):
    """One decoder layer for packed texts, on a CPU in float32 and for inference only.

    Parameters
    ----------
    functions : of ``fused.c``.
    """

    def __init__(self, block: Any, functions: ctypes.CDLL) -> None:
        super().__init__(block)
        self.functions = functions

    def compute(self, states: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
        """Return the layer's states (total, D) of those before it."""
        attention, feed = self.block.self_attn, self.block.mlp
        normed = self._norm(states.contiguous(), self.block.input_layernorm)
        queries, keys, values = (
            each.reshape(len(normed), -1, attention.head_dim).contiguous()
            for each in project(normed, (attention.q_proj, attention.k_proj, attention.v_proj))
        )
        cos, sin = (each[0].contiguous() for each in cos_sin)
        for heads, norm in ((queries, "q_norm"), (keys, "k_norm")):
            self._norm_rope(heads, getattr(attention, norm, None), cos, sin)
        states = add_linear(states, self.attend(queries, keys, values), attention.o_proj)
        normed = self._norm(states, self.block.post_attention_layernorm)
        gate, up = (each.contiguous() for each in project(normed, (feed.gate_proj, feed.up_proj)))
        self.functions.millpond_swiglu_float(
            address(gate), address(up), *gate.shape, torch.get_num_threads()
        )
        return add_linear(states, gate, feed.down_proj)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return attention's output, (total, heads x width), for (total, heads, width)."""
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

    def _norm_rope(self, heads: Tensor, norm: Any | None, cos: Tensor, sin: Tensor) -> None:
        """Apply QK-norm, where there is one, and RoPE to heads (total, count, width), in place."""
        self.functions.millpond_norm_rope(
            *(address(heads), address(None if norm is None else norm.weight)),
            *(0.0 if norm is None else norm.variance_epsilon, address(cos), address(sin)),
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
    """Return the address of a tensor's numbers for C; None for its null pointer."""
    return None if tensor is None else tensor.data_ptr()
