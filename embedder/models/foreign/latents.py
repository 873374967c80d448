"""Names of the weights of poolings with latents, as their authors' code and ours call them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from embedder.pooling import PoolingOptions
from retrieval.errors import ModelError, UsageError

_ATTEND, _FORWARD = "cross_attend_blocks.0.", "cross_attend_blocks.1."
_KEY_VALUE = f"{_ATTEND}fn.to_kv.weight"
_NAMES = {
    "latents": "latents",
    f"{_ATTEND}fn.to_q.weight": "attend.query.weight",
    f"{_ATTEND}fn.to_out.weight": "attend.output.weight",
    f"{_FORWARD}norm.weight": "feedforward.norm.weight",
    f"{_FORWARD}norm.bias": "feedforward.norm.bias",
    f"{_FORWARD}fn.net.0.weight": "feedforward.expand.weight",
    f"{_FORWARD}fn.net.0.bias": "feedforward.expand.bias",
    f"{_FORWARD}fn.net.2.weight": "feedforward.contract.weight",
    f"{_FORWARD}fn.net.2.bias": "feedforward.contract.bias",
}
_NORMS = ("query_norm", "context_norm")
_LAYERS = "pos_emb.weight"


def rename_latents(
    tensors: Mapping[str, Tensor], source: str, *, queries_are_latents: bool, layers: int | None
) -> dict[str, Tensor]:
    """Return the weights of a ``LatentQueryPooling`` or ``LatentKeyPooling`` under our names.

    Parameters
    ----------
    tensors : of ``PerceiverResampler`` of arXiv 2409.02727, or of NV-Embed's
        ``LatentAttentionModel``, in any dtype.
    source : their file, for messages.
    queries_are_latents : whether latents attend to what is pooled, as in arXiv 2409.02727; in
        NV-Embed it is the other way round. Their PreNorm norms what is pooled and calls the
        latents its context, in both.
    layers : L, how many rows of the layer-weight matrix are read; None where there is none.

    Raises
    ------
    ModelError : a tensor is missing, unknown, or of a shape that does not fit the others.
    """
    pooled, latents = reversed(_NORMS) if queries_are_latents else _NORMS
    names = dict(_NAMES)
    for part in ("weight", "bias"):
        names[f"{_ATTEND}norm.{part}"] = f"attend.{pooled}.{part}"
        names[f"{_ATTEND}norm_context.{part}"] = f"attend.{latents}.{part}"
    if layers is not None:
        names[_LAYERS] = "layer_weights"
    needed = {*names, _KEY_VALUE}
    for name in sorted({*needed, *tensors}):
        if name not in tensors or name not in needed:
            wrong = "lacks" if name in needed else "holds"
            hint = " (model3 and model5 have it)" if name == _LAYERS else ""
            raise ModelError(f"{source}: it {wrong} {name!r}{hint}, so it is of another variant.")
    found = {ours: tensors[theirs].float() for theirs, ours in names.items()}
    found["attend.key.weight"], found["attend.value.weight"] = (
        half.float().contiguous() for half in tensors[_KEY_VALUE].chunk(2)
    )
    if layers is not None:
        rows = len(found["layer_weights"])
        if rows < layers:
            raise ModelError(
                f"{source}: {_LAYERS!r} has {rows} rows, but the base has {layers} layers: it was "
                f"made for another base."
            )
        found["layer_weights"] = found["layer_weights"][:layers].contiguous()
    return found


def pooling_options(weights: Mapping[str, Tensor], heads: int, source: str) -> PoolingOptions:
    """Return the options of the pooling that has these weights, which are renamed already.

    Parameters
    ----------
    heads : how many attention heads share the width of the projections; no tensor tells.

    Raises
    ------
    UsageError : the width cannot be divided by ``heads``.
    """
    latents, width = weights["latents"].shape
    inner = len(weights["attend.query.weight"])
    if heads < 1 or inner % heads:
        raise UsageError(
            f"{source}: the attention is {inner} wide, which {heads} heads cannot share. Type the "
            f"number of heads it was trained with: --heads N."
        )
    return PoolingOptions(
        latents=latents,
        heads=heads,
        head_width=inner // heads,
        feedforward_multiple=weights["feedforward.contract.weight"].shape[1] // width,
    )
