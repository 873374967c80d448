"""What speed "fast" does: int8 layers on CPUs that gain by them, and compiled layers in long work.

Both are used only where they are a gain.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch

from embedder.engine.backbone import Backbone
from embedder.engine.fused import BuildError, load_functions
from embedder.engine.fused_int8 import fused_int8_layers
from embedder.engine.int8 import Int8Linear, cpu_has_vnni, quantize_linears
from embedder.engine.lean import LeanLayer
from embedder.engine.probe import layers_agree
from embedder.environment import first_line
from embedder.models.lora import has_adapter
from retrieval.protocols import Notify

__all__ = [
    "INT8_REPAID_SECONDS",
    "REPAID_SECONDS",
    "LayerCompiler",
    "describe_speeds",
    "quantize_backbone",
    "unfuse",
]

REPAID_SECONDS = 600.0
"""Compiling takes 10 to 60 s and gains a few per cent in float32: less work does not repay it."""

INT8_REPAID_SECONDS = 180.0
"""The same for int8 layers, where it gains a quarter."""

LEAST_GAIN = 1.03
_WARMING_BATCHES = 3
_COMPARED_BATCHES = 4


class LayerCompiler:
    """Decides when decoder layers are compiled, and whether they stay so.

    Nothing is compiled until the time spent, or the time that the tokens at hand will take, is
    ``repaid_seconds``. Then compiled and plain batches take turns, so that both see the same
    machine. Where the gain is below 3 per cent, or the compiler fails (none is installed, or it
    cannot handle the layers), the layers stay as they were, and one line says so. Vectors are the
    same to 1e-5 either way.

    Parameters
    ----------
    layers : gives what has the ``forward`` to compile, once it is needed.
    """

    def __init__(
        self,
        layers: Callable[[], Iterable[Any]],
        notify: Notify,
        *,
        repaid_seconds: float = REPAID_SECONDS,
    ) -> None:
        self._layers = layers
        self._notify = notify
        self._repaid_seconds = repaid_seconds
        self._compiled: list[tuple[Any, Any]] = []
        self._rates: dict[bool, list[float]] = {False: [], True: []}
        self._seconds = 0.0
        self._tried_batches = 0
        self.state: Literal["waiting", "trying", "kept", "dropped"] = "waiting"

    @property
    def is_on(self) -> bool:
        """Whether the next batch runs compiled; in the trial the first ones, then every other."""
        warming = self._tried_batches < _WARMING_BATCHES
        turn = (self._tried_batches - _WARMING_BATCHES) % 2 == 0
        return self.state == "kept" or (self.state == "trying" and (warming or turn))

    def consider(self, tokens_left: int) -> None:
        """Compile now if it will pay: called before each batch."""
        plain = self._rates[False]
        if self.state != "waiting" or len(plain) < _COMPARED_BATCHES:
            return
        ahead = tokens_left / statistics.median(plain)
        if max(ahead, self._seconds) < self._repaid_seconds:
            return
        self._notify("Compiling the decoder layers, once for this run")
        try:
            self._compiled = [
                (layer, torch.compile(layer.forward, dynamic=True)) for layer in self._layers()
            ]
        except Exception as error:  # torch.compile refuses platforms in several ways
            self.give_up(error)
        else:
            self.state = "trying"

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the layers their compiled forward inside the block, where there is one."""
        for layer, forward in self._compiled if self.is_on else []:
            layer.forward = forward
        try:
            yield
        finally:
            for layer, _ in self._compiled:
                vars(layer).pop("forward", None)

    def record(self, tokens: int, seconds: float) -> None:
        """Record a batch's time; after the trial, keep or drop the compiled layers."""
        self._seconds += seconds
        if self.state == "trying":
            self._tried_batches += 1
            if self._tried_batches <= _WARMING_BATCHES:  # these compiled, and say nothing
                return
        elif self.state != "waiting":
            return
        ran_compiled = self.state == "trying" and (self._tried_batches - _WARMING_BATCHES) % 2 == 1
        rates = self._rates[ran_compiled]
        rates.append(tokens / seconds)
        del rates[:-_COMPARED_BATCHES]
        if self._tried_batches == _WARMING_BATCHES + 2 * _COMPARED_BATCHES:
            self._judge()

    def give_up(self, error: Exception) -> None:
        """Stop compiling, and say why."""
        self._drop(f"The layers cannot be compiled here ({first_line(error)[:120]})")

    def _judge(self) -> None:
        plain, compiled = (statistics.median(self._rates[kind]) for kind in (False, True))
        gain = compiled / plain
        if gain < LEAST_GAIN:
            self._drop(f"Compiled layers run at {gain:.2f} of the plain speed")
        else:
            self.state = "kept"

    def _drop(self, reason: str) -> None:
        # The list stays until in_place has taken the forwards back.
        self.state = "dropped"
        for layer, _ in self._compiled:
            vars(layer).pop("forward", None)
        self._compiled = []
        self._notify(f"{reason}; using plain ones.")


_ROUNDING = 0.02
"""How far a fused int8 layer may be from the lean one, as a share of the change that it makes.

Values near the middle of two steps are rounded the other way.
"""


def quantize_backbone(backbone: Backbone, notify: Notify) -> bool:
    """Make the decoder's linear layers int8 where that is a gain; return whether it was done.

    One line says why where it was not. The choice follows from the hardware and the model alone,
    never from a stopwatch, since it changes vectors: the same machine must choose the same again.
    """
    if any(isinstance(module, Int8Linear) for module in backbone.modules()):
        return True  # done for another model on this base
    reason = _why_not(backbone)
    if reason is None:
        unfuse(backbone)
        lean = backbone.packing.layers
        rotated = dict(layer.rotate_values() for layer in lean)
        if quantize_linears(backbone.blocks(), rotated):
            for layer in lean:
                layer.join_int8()
            _fuse(backbone, lean, notify)
            return True
    notify(f"speed fast: {reason or 'the model has no layers for int8'}; computing in float32.")
    return False


def _fuse(backbone: Backbone, lean: Sequence[LeanLayer], notify: Notify) -> None:
    """Let fused layers compute packed texts, where there are some that give what lean ones do."""
    try:
        fused = fused_int8_layers(lean)
    except BuildError as error:
        notify(f"speed fast: {error}; so layers are not fused, which is slower.")
        return
    if not fused:
        return
    is_causal = backbone.attention.is_causal
    if layers_agree(backbone.model, is_causal, lean, fused, _ROUNDING):
        backbone.packing = replace(backbone.packing, layers=fused)
    else:
        notify("speed fast: fused layers differ from the base's own and are not used.")


def unfuse(backbone: Backbone) -> None:
    """Let torch's own operations compute packed texts, as where there is no C compiler."""
    layers = tuple(LeanLayer(layer.block) for layer in backbone.packing.layers)
    backbone.packing = replace(backbone.packing, layers=layers)


def describe_speeds(device: torch.device) -> tuple[str, str]:
    """Return a few words on what ``exact`` and ``fast`` do with usual bases on this machine."""
    if device.type != "cpu":
        return "torch's own layers", "compiled layers in long runs"
    try:
        load_functions()
        exact = "fused layers"
    except BuildError as error:
        exact = f"torch's own layers ({error})"
    return exact, f"{exact}, int8" if cpu_has_vnni() else f"{exact} (int8 needs VNNI)"


def _why_not(backbone: Backbone) -> str | None:
    weights = next(backbone.model.parameters())
    if weights.device.type != "cpu":
        return f"int8 is for CPUs, and the model is on {weights.device.type}"
    if weights.dtype != torch.float32:
        return f"int8 layers take float32, and the model is in {weights.dtype}"
    if not cpu_has_vnni():
        return "int8 needs a CPU with VNNI, which this one lacks (there int8 is slower)"
    if has_adapter(backbone):
        return "int8 layers cannot be under LoRA; load the model with merge=True"
    return None
