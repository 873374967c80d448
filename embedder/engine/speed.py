"""The two speeds by name, and what ``fast`` can do on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch

from embedder.backbone import Backbone
from embedder.bases import Notify
from embedder.engine.fused_build import BuildError, load_functions
from embedder.engine.fused_int8 import fused_int8_layers
from embedder.engine.int8 import Int8Linear, cpu_has_vnni, quantize_linears
from embedder.engine.lean import LeanLayer
from embedder.engine.probe import layers_agree
from embedder.lora import has_adapter
from retrieval.errors import UsageError

__all__ = [
    "SPEEDS",
    "Speed",
    "check_speed",
    "describe_speeds",
    "quantize_backbone",
    "unfuse",
]

Speed = Literal["exact", "fast"]
"""``exact`` gives the model's own vectors. ``fast`` may compute in int8 and compile layers."""

SPEEDS: tuple[Speed, ...] = get_args(Speed)


_ROUNDING = 0.02
"""How far int8 layers may be apart, over what they change: some are rounded the other way."""


def check_speed(speed: str) -> Speed:
    """Return the speed, or raise UsageError where there is none of this name."""
    for known in SPEEDS:
        if speed == known:
            return known
    raise UsageError(f"speed is {speed!r}; accepted: {', '.join(SPEEDS)}.")


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
        turned = dict(layer.turn_values() for layer in lean)
        if quantize_linears(backbone.blocks(), turned):
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
        notify(f"speed fast: {error}; so layers are not fused, and slower.")
        return
    if not fused:
        return
    is_causal = backbone.attention.is_causal
    if layers_agree(backbone.model, is_causal, lean, fused, _ROUNDING):
        backbone.packing = replace(backbone.packing, layers=fused)
    else:
        notify("speed fast: fused layers differ from the base's own; going on without.")


def unfuse(backbone: Backbone) -> None:
    """Let torch's own operations compute packed texts, as where there is no C compiler."""
    layers = tuple(LeanLayer(layer.block) for layer in backbone.packing.layers)
    backbone.packing = replace(backbone.packing, layers=layers)


def describe_speeds(device: torch.device) -> tuple[str, str]:
    """Return in a few words what ``exact`` and ``fast`` do with the usual bases on this machine."""
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
