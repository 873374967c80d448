"""``millpond import``: a checkpoint of other code as a model folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cli.commands.merge import DtypeOption, OutOption
from cli.console import message

if TYPE_CHECKING:
    from embedder.models.saving import WeightsDtype

__all__ = ["import_"]


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A folder that a trainer of PoolingAndAttn wrote: adapter and attn_pool.pt.",
        ),
    ],
    out: OutOption,
    variant: Annotated[
        str, typer.Option(metavar="NAME", help="Which of the paper's designs: model1 to model5.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BASE",
            help="Its base: a folder, hub id or built-in base.",
            show_default="as its adapter_config.json says",
        ),
    ] = None,
    heads: Annotated[
        int, typer.Option(metavar="N", min=1, help="Attention heads of the trainable pooling.")
    ] = 32,
    weights_dtype: DtypeOption = "float32",
) -> None:
    """Import a checkpoint of the authors of arXiv 2409.02727.

    Their tensors are renamed; the vectors stay theirs. attn_pool.pt is read by torch's restricted
    reader, which runs no code.

    \b
    Example:
      millpond import their-model3 --variant model3 --base mistral-7b --out my-model3
    """
    from embedder.models.foreign.checkpoints import import_checkpoint

    import_checkpoint(
        checkpoint,
        out,
        variant=variant,
        base=base,
        heads=heads,
        weights_dtype=cast("WeightsDtype", weights_dtype),
        notify=message,
    )
    message(f"Wrote the model {out}")
    message(f"Next: millpond index python-stdlib --out demo-index --model {shlex.quote(str(out))}")
