"""Packed attention for a GPU: one call per layer where the installed libraries offer it.

torch has attention over texts of varying length from 2.10 on (``torch.nn.attention.varlen``), and
so has the package flash_attn; both are for half precision. Otherwise texts are attended in buckets
that are padded a little. Which of them is used is found out by ``probe``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from embedder.engine.packing import Kernel, PackedBatch, PackingError, Pattern

HALF_TOLERANCE = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far rounding in one layer may take a token's state, as a share of its length."""

_TOLERANCE = 1e-4


def cuda_kernels(dtype: torch.dtype) -> list[Kernel]:
    """Return the kernels to try on CUDA in this dtype, the best one first."""
    found = [BUCKETS]
    if dtype in HALF_TOLERANCE:
        flash = _imported("flash_attn", "flash_attn_varlen_func")
        if flash is not None:
            found.insert(0, flash_kernel(flash))
        varlen = _imported("torch.nn.attention.varlen", "varlen_attn")
        if varlen is not None:
            found[:0] = [varlen_kernel(varlen), varlen_kernel(varlen, repeats_heads=True)]
    return found


def varlen_kernel(function: Callable[..., Any], *, repeats_heads: bool = False) -> Kernel:
    """Return a kernel over torch's ``varlen_attn``, whose arguments differ between releases.

    Parameters
    ----------
    repeats_heads : give keys and values as many heads as queries have, for a release that does
        not take fewer.
    """
    known = inspect.signature(function).parameters

    def run(
        query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
    ) -> Tensor:
        if repeats_heads:
            key, value = _repeat_heads(query, key, value)
        settings: dict[str, Any] = {}
        if "scale" in known:
            settings["scale"] = pattern.scaling
        elif pattern.scaling is not None:  # torch 2.10 divides by the root of the width
            query = query * (pattern.scaling * query.shape[-1] ** 0.5)
        if "window_size" in known:
            settings["window_size"] = _reach(pattern)
        else:
            settings["is_causal"] = pattern.is_causal
        if "enable_gqa" in known:
            settings["enable_gqa"] = key.shape[1] != query.shape[1]
        offsets, longest = batch.offsets, batch.longest
        rows = (_by_token(query), _by_token(key), _by_token(value))
        found: Tensor = function(*rows, offsets, offsets, longest, longest, **settings)
        return found[None].contiguous()

    name = "torch varlen_attn" + (", heads repeated" if repeats_heads else "")
    return Kernel(name, run, takes_windows="window_size" in known)


def flash_kernel(function: Callable[..., Any]) -> Kernel:
    """Return a kernel over ``flash_attn_varlen_func`` of the package flash_attn."""

    def run(
        query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
    ) -> Tensor:
        found: Tensor = function(
            *(_by_token(query), _by_token(key), _by_token(value)),
            *(batch.offsets, batch.offsets, batch.longest, batch.longest),
            softmax_scale=pattern.scaling,
            causal=pattern.is_causal,
            window_size=_reach(pattern) if pattern.window else (-1, -1),
        )
        return found[None].contiguous()

    return Kernel("flash_attn", run, takes_windows=True)


def _attend_buckets(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
) -> Tensor:
    """Attend once per bucket; under causal attention padding, on the right, needs no mask."""
    key, value = _repeat_heads(query, key, value)
    found = []
    for bucket in batch.buckets:
        needs_mask = bucket.slots is not None and not pattern.is_causal
        mixed = F.scaled_dot_product_attention(
            bucket.pad(_by_token(query)).transpose(1, 2),
            bucket.pad(_by_token(key)).transpose(1, 2),
            bucket.pad(_by_token(value)).transpose(1, 2),
            attn_mask=bucket.real[:, None, None] if needs_mask else None,
            is_causal=pattern.is_causal,
            scale=pattern.scaling,
        )
        found.append(bucket.unpad(mixed.transpose(1, 2)))
    return torch.cat(found)[None]


BUCKETS = Kernel("padded buckets", _attend_buckets)


def checked(kernel: Kernel) -> Kernel:
    """Return the kernel with every call compared with attention by its definition.

    Its ``run`` raises PackingError where a token's result in one head is further from the float32
    one than rounding in its dtype explains. States after many layers could not show that: there
    rounding has grown.
    """

    def run(
        query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
    ) -> Tensor:
        found = kernel.run(query, key, value, batch, pattern)
        if not kernel.takes_windows:
            pattern = replace(pattern, window=None)
        expected = _by_definition(query, key, value, batch, pattern)
        apart = (found.float() - expected).norm(dim=-1)
        most = HALF_TOLERANCE.get(query.dtype, _TOLERANCE)
        if not bool((apart <= most * expected.norm(dim=-1) + 1e-6).all()):
            raise PackingError(f"{kernel.name} computes another attention")
        return found

    return replace(kernel, run=run)


def _by_definition(
    query: Tensor, key: Tensor, value: Tensor, batch: PackedBatch, pattern: Pattern
) -> Tensor:
    """Return (1, total, heads, d) float32, text by text, under a mask spelled out."""
    query, key, value = (states.float() for states in (query, *_repeat_heads(query, key, value)))
    bounds = batch.offsets.tolist()
    found = []
    for start, stop in pairwise(bounds):
        places = torch.arange(stop - start, device=query.device)
        back = places[:, None] - places
        seen = back >= 0 if pattern.is_causal else torch.ones_like(back, dtype=torch.bool)
        if pattern.window is not None:
            seen &= back < pattern.window
        own = slice(start, stop)
        mixed = F.scaled_dot_product_attention(
            query[:, :, own],
            key[:, :, own],
            value[:, :, own],
            attn_mask=seen,
            scale=pattern.scaling,
        )
        found.append(mixed)
    return torch.cat(found, dim=2).transpose(1, 2)


def _reach(pattern: Pattern) -> tuple[int, int]:
    """Return the number of tokens seen to the left and to the right; -1 for all."""
    left = -1 if pattern.window is None else pattern.window - 1
    return left, 0 if pattern.is_causal else -1


def _by_token(states: Tensor) -> Tensor:
    """Return (total, heads, d) of (1, heads, total, d)."""
    return states[0].transpose(0, 1)


def _repeat_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values with as many heads as queries have."""
    times = query.shape[1] // key.shape[1]
    if times == 1:
        return key, value
    return key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)


def _imported(module: str, name: str) -> Callable[..., Any] | None:
    """Return a function of a module that may be missing, or may not load on this machine."""
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except Exception:  # a package built for another torch raises its own kinds
        return None
    return function
