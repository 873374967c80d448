"""What a loaded base does: whether it attends as asked, and whether and how it may be packed.

In transformers 5 a decoder turns bidirectional when ``config.is_causal`` is False: mask and
kernel both follow it. Some architectures ignore the switch without a word, so every load is
probed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedder.engine.kernels import HALF_TOLERANCE, checked, cuda_kernels
from embedder.engine.packing import (
    GROUPS,
    Kernel,
    PackedBatch,
    PackingError,
    can_pack,
    packed_states,
)
from embedder.environment import first_line
from embedder.variants import Attention
from retrieval.errors import AttentionProbeError, ModelError

PROBE_LENGTHS = (7, 5, 5, 2, 1)
_TOLERANCE = 1e-4
_LONGEST_PROBED_WINDOW = 4096
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size", "local_attention")
"""The settings in which configurations keep how many tokens some layers can look back."""

PROBE_TOKENS = 8
_MOVED = {torch.float32: 1e-5, torch.float64: 1e-5}
_MOVED_HALF = 2e-3

PaddedStates = Callable[[Tensor, Tensor], Tensor]
Blocks = Callable[[], Iterable[nn.Module]]


@dataclass(frozen=True)
class Packing:
    """How a base is packed.

    Attributes
    ----------
    longest : the longest text, in tokens, that may be packed; 0 for none.
    kernel : what attends within each text.
    """

    longest: int = 0
    kernel: Kernel = GROUPS


def find_kernels(device: torch.device, dtype: torch.dtype) -> list[Kernel]:
    """Return the kernels to try on this device in this dtype, the best one first."""
    if device.type == "cuda":
        return cuda_kernels(dtype)
    return [GROUPS] if device.type == "cpu" else []


@dataclass(frozen=True)
class _Reference:
    """Some texts and their states on the padded path.

    Attributes
    ----------
    states : of the last layer, (total, D).
    inputs : of every decoder layer, (total, D), in half precision; else none.
    """

    rows: list[list[int]]
    states: Tensor
    inputs: list[Tensor]


@torch.no_grad()
def choose_packing(
    model: Any,
    padded_states: PaddedStates,
    is_causal: bool,
    blocks: Blocks,
    kernels: Sequence[Kernel] | None = None,
) -> Packing:
    """Return the first kernel that gives the padded states, and the longest text it does so for.

    Random texts of several lengths go through the model packed and padded. In float32 every state
    must be the same to 1e-4 of the largest one. In half precision what rounding does in one layer
    grows in the next ones (to a third of a state in smollm2-135m without a causal mask), so there
    every layer is given the padded path's states and has to come near the next ones. Every kernel
    but ``GROUPS`` is compared with attention in float32 besides. A base that does not take its
    attention from transformers' interface, asks it for more than the packed attention does, or
    mixes neighbouring tokens elsewhere, is padded.

    A layer with a sliding window sees all of a text that is no longer than the window. Longer ones
    are padded, unless attention is causal and the kernel takes windows: then a text of one and a
    half windows is compared too.

    Parameters
    ----------
    padded_states : (ids (B, T) int64, mask (B, T) int64) to states (B, T, D).
    blocks : gives the decoder layers; may raise where there is no list of them.
    kernels : what to choose from; by default, what there is for the model's device and dtype.
    """
    weights = next(model.parameters())
    if kernels is None:
        kernels = find_kernels(weights.device, weights.dtype)
    if not kernels or not can_pack(model):
        return Packing()
    try:
        layers = list(blocks()) if weights.dtype in HALF_TOLERANCE else []
    except Exception:  # without layers to compare, nothing is known of half precision
        return Packing()
    reference = _padded(model, padded_states, layers, PROBE_LENGTHS)
    for kernel in kernels:
        windows = _compare(model, kernel, is_causal, layers, reference)
        if windows is None:
            continue
        named = max(windows, default=0)
        heeds = bool(kernel.takes_windows and is_causal and 0 < named <= _LONGEST_PROBED_WINDOW)
        if heeds:
            more = _padded(model, padded_states, layers, (named + named // 2, 3))
            heeds = _compare(model, kernel, is_causal, layers, more) is not None
        limits = [window for window in _configured_windows(model.config) if window not in windows]
        return Packing(min([sys.maxsize, *limits, *(() if heeds else windows)]), kernel)
    return Packing()


def _padded(
    model: Any,
    padded_states: PaddedStates,
    layers: Sequence[nn.Module],
    lengths: Sequence[int],
) -> _Reference:
    """Return random texts of these lengths, and their states on the padded path."""
    device = next(model.parameters()).device
    rows = random_rows(model, lengths)
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    real = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).to(device)
    inputs: list[Tensor] = []

    def keep(layer: int, states: Tensor) -> Tensor:
        inputs.append(states[real])
        return states

    with _at_inputs(layers, keep):
        states = padded_states(ids, real.long())[real]
    return _Reference([row.tolist() for row in rows], states, inputs)


def random_rows(model: Any, lengths: Sequence[int]) -> list[Tensor]:
    """Return token ids (length,) int64 for each length, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.config.vocab_size)
    return [torch.randint(0, vocabulary, (length,), generator=generator) for length in lengths]


def _compare(
    model: Any,
    kernel: Kernel,
    is_causal: bool,
    layers: Sequence[nn.Module],
    reference: _Reference,
) -> set[int] | None:
    """Return the windows that layers named; None where the packed states are others."""
    batch = PackedBatch.of(reference.rows, reference.states.device)
    tested = kernel if kernel is GROUPS else checked(kernel)

    def force(layer: int, states: Tensor) -> Tensor:
        if not _are_the_same(states[0], reference.inputs[layer]):
            raise PackingError(f"layer {layer} gives other states packed than padded")
        return reference.inputs[layer][None]

    try:
        with _at_inputs(layers, force):
            found, windows = packed_states(model, batch, is_causal, tested)
    except Exception:  # whatever an unknown architecture raises, the padded path is right
        return None
    return windows if _are_the_same(found, reference.states) else None


@contextmanager
def _at_inputs(
    layers: Sequence[nn.Module], change: Callable[[int, Tensor], Tensor]
) -> Iterator[None]:
    """Inside the block, let every layer read ``change(its place, states)`` for its states."""

    def hook(place: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def replace(
            module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if given:
                return (change(place, given[0]), *given[1:]), named
            return given, {**named, "hidden_states": change(place, named["hidden_states"])}

        return replace

    hooks = [
        layer.register_forward_pre_hook(hook(place), with_kwargs=True)
        for place, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _are_the_same(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    apart = (found - expected).float()
    most = HALF_TOLERANCE.get(expected.dtype)
    if most is None:
        return bool(apart.abs().max() / expected.abs().max() <= _TOLERANCE)
    return bool((apart.norm(dim=-1) <= most * expected.float().norm(dim=-1)).all())


def _configured_windows(config: Any) -> list[int]:
    found = [getattr(config, name, None) for name in _WINDOWS]
    return [window for window in found if isinstance(window, int) and window > 0]


@torch.no_grad()
def probe_attention(
    states: Callable[[Tensor, Tensor], Tensor],
    attention: Attention,
    *,
    vocabulary: int,
    device: torch.device,
    described: str,
) -> None:
    """Raise AttentionProbeError unless the model attends the way ``attention`` says.

    The last real token of a short text is changed. Under bidirectional attention the first
    position's last-layer state must move, under causal attention no earlier position may. Both
    an unpadded and a right-padded batch are tried, since they can take different kernels.

    Parameters
    ----------
    states : (ids (B, T) int64, mask (B, T) int64) to last-layer states (B, T, D).
    vocabulary : token ids 0 to vocabulary - 1 are valid.
    described : the model's name, for the message.

    Raises
    ------
    ModelError : it computes nothing at all, as MPT does without a causal mask.
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, vocabulary, (1, PROBE_TOKENS), generator=generator)
    changed = first.clone()
    changed[0, -1] = (changed[0, -1] + vocabulary // 2) % vocabulary
    pair = torch.cat([first, changed]).to(device)
    for padding in (0, 2):
        ids = torch.cat([pair, pair[:, :1].expand(2, padding)], dim=1)
        mask = torch.ones_like(ids)
        mask[:, PROBE_TOKENS:] = 0
        found = _compute(states, ids, mask, attention, described)
        earlier = found[:, : PROBE_TOKENS - 1].float()
        shift = (earlier[0] - earlier[1]).abs().amax(dim=-1) / earlier.abs().max()
        moved = shift > _MOVED.get(found.dtype, _MOVED_HALF)
        if attention.is_causal and bool(moved.any()):
            raise AttentionProbeError(
                f"{described} was asked for causal attention, but changing the last token moved "
                f"an earlier position. This architecture attends both ways by itself: "
                f"use +bidirectional."
            )
        if not attention.is_causal and not bool(moved[0]):
            raise AttentionProbeError(
                f"{described} was asked for bidirectional attention, but changing the last token "
                f"left the first position as it was: this architecture ignores "
                f"config.is_causal=False. Use +causal, or another base (llama, qwen3, mistral "
                f"and gemma3 architectures follow it)."
            )


def _compute(
    states: PaddedStates, ids: Tensor, mask: Tensor, attention: Attention, described: str
) -> Tensor:
    try:
        return states(ids, mask)
    except Exception as error:  # whatever an architecture raises
        other = "bidirectional" if attention.is_causal else "causal"
        raise ModelError(
            f"{described} cannot compute with {attention.name} attention "
            f"({type(error).__name__}: {first_line(error)}). Try +{other}, or another base."
        ) from error
