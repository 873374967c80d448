"""What speed "fast" does: int8 layers, on CPUs that gain by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embedder.engine.backbone import Backbone
from embedder.engine.fused import (
    FusedLayer,
    PanelProduct,
    UnavailableError,
    can_be_fused,
    load_functions,
)
from embedder.engine.hadamard import block_of
from embedder.engine.int8 import (
    TORCH,
    Int8Linear,
    Product,
    cpu_has_vnni,
    find_linears,
    quantize_linears,
    rotate_outputs,
)
from embedder.engine.packing import PackedBatch, attending_to, packed_states
from embedder.engine.probe import random_rows
from embedder.models.lora import has_adapter
from retrieval.protocols import Notify

_ROUNDING = 0.02
"""How far a fused layer may be from its block, as a share of the change that it makes.

Values near the middle of two steps are rounded the other way.
"""

_LENGTHS = (19, 7, 1)


def quantize_backbone(backbone: Backbone, notify: Notify) -> bool:
    """Make the decoder's linear layers int8 where that is a gain; return whether it was done.

    One line says why where it was not. The choice follows from the hardware and the model alone,
    never from a stopwatch, since it changes vectors: the same machine must choose the same again.
    """
    if any(isinstance(module, Int8Linear) for module in backbone.modules()):
        return True  # done for another model on this base
    try:
        product = _choose_product(backbone)
    except UnavailableError as error:
        notify(f"speed fast: {error}; computing in float32.")
        return False
    blocks = backbone.blocks()
    fuses = all(map(can_be_fused, blocks))
    rotated = dict(map(_rotate_values, blocks)) if fuses else {}
    quantize_linears(blocks, rotated, product)
    if fuses:
        _fuse(backbone, notify)
    return True


def _rotate_values(block: Any) -> tuple[nn.Linear, int]:
    """Let values come rotated from their layer, which makes the inputs of ``o_proj`` rotated.

    Attention mixes tokens, never the numbers of one head, so nothing else changes. Returns
    ``o_proj`` and the size of the blocks.
    """
    attention = block.self_attn
    size = block_of(attention.head_dim)
    rotate_outputs(attention.v_proj, size)
    return attention.o_proj, size


def _fuse(backbone: Backbone, notify: Notify) -> None:
    """Put fused layers in the place of blocks, where all of them compute the same."""
    try:
        functions = load_functions()
    except UnavailableError as error:
        notify(f"speed fast: {error}; so layers are not fused, which is slower.")
        return
    blocks = backbone.blocks()
    before = list(blocks)
    for place, block in enumerate(before):
        blocks[place] = FusedLayer(block, functions)
    if not _fused_layers_agree(backbone):
        for place, block in enumerate(before):
            blocks[place] = block
        notify("speed fast: fused layers differ from the base's own and are not used.")


@torch.no_grad()
def _fused_layers_agree(backbone: Backbone) -> bool:
    """Whether each fused layer gives what its block gives for the same states."""
    apart: list[float] = []

    def compare(layer: Any, given: Any, named: Any, found: torch.Tensor) -> None:
        if attending_to() is None:
            return
        states = given[0] if given else named["hidden_states"]
        expected = layer.block(*given, **named)
        largest = (found - expected).abs().max() / (expected - states).abs().max()
        apart.append(float(largest))

    hooks = [layer.register_forward_hook(compare, with_kwargs=True) for layer in backbone.blocks()]
    rows = [row.tolist() for row in random_rows(backbone.model, _LENGTHS)]
    try:
        packed_states(
            backbone.model, PackedBatch.of(rows, backbone.device), backbone.attention.is_causal
        )
    except Exception:  # such as a shape that the functions were not made for
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return len(apart) == len(hooks) and all(each <= _ROUNDING for each in apart)


def describe_speeds(device: torch.device) -> tuple[str, str]:
    """Return a few words on what ``exact`` and ``fast`` do with usual bases on this machine."""
    exact = "float32, packed" if device.type == "cpu" else "packed"
    if device.type != "cpu":
        return exact, "as exact (int8 is for CPUs)"
    try:
        load_functions()
    except UnavailableError as error:
        if cpu_has_vnni():
            return exact, f"int8, layers not fused ({error})"
        return exact, f"as exact ({_NEEDS}, and {error})"
    return exact, "int8, fused layers"


_NEEDS = "int8 needs AVX512-VNNI, or AVX2 and the C functions"


def _choose_product(backbone: Backbone) -> Product:
    """Return what multiplies the decoder's layers in int8, or raise UnavailableError."""
    weights = next(backbone.model.parameters())
    if weights.device.type != "cpu":
        raise UnavailableError(f"int8 is for CPUs, and the model is on {weights.device.type}")
    if weights.dtype != torch.float32:
        raise UnavailableError(f"int8 layers take float32, and the model is in {weights.dtype}")
    if has_adapter(backbone):
        raise UnavailableError("int8 layers cannot be under LoRA; load the model with merge=True")
    linears = [linear for _, _, linear in find_linears(backbone.blocks())]
    if not linears:
        raise UnavailableError("the model has no layers for int8")
    if cpu_has_vnni():
        return TORCH
    try:
        product = PanelProduct(load_functions())
    except UnavailableError as error:
        raise UnavailableError(f"{_NEEDS}, and {error}") from error
    if not all(map(product.takes, linears)):
        raise UnavailableError(
            "without AVX512-VNNI int8 layers have a multiple of 16 outputs, and these have not"
        )
    return product
