"""``millpond merge`` and ``millpond soup``: one model folder made from others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cli.console import message
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from embedder.models.saving import WeightsDtype

__all__ = ["merge", "soup"]

OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="The new model's folder.")
]
DtypeOption = Annotated[
    str,
    typer.Option("--weights-dtype", metavar="DTYPE", help="float32, or bfloat16: half the size."),
]


def merge(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="A folder that 'millpond train' wrote.")
    ],
    out: OutOption,
    weights_dtype: DtypeOption = "float32",
) -> None:
    """Fold a trained LoRA into its base model.

    Writes a plain model folder that loads without the original base; it appears whole or not at
    all.

    \b
    Example:
      millpond merge my-model --out my-model-merged
    """
    from embedder.models.merge import merge_model

    merge_model(model, out, weights_dtype=cast("WeightsDtype", weights_dtype), notify=message)
    _report(out)


def soup(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL_DIR...", help="Two or more models of one spec and base."),
    ],
    out: OutOption,
    weights: Annotated[
        str | None,
        typer.Option(metavar="W,W,...", help="One weight per model.", show_default="all equal"),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Average the LoRA updates, not their factors; ranks add up."),
    ] = False,
    weights_dtype: DtypeOption = "float32",
) -> None:
    """Average the weights of several models trained with one spec.

    \b
    Example:
      millpond soup my-model-1 my-model-2 --out my-soup
    """
    from embedder.models.merge import soup_models

    soup_models(
        models,
        out,
        _parse_weights(weights),
        exact=exact,
        weights_dtype=cast("WeightsDtype", weights_dtype),
    )
    _report(out)


def _parse_weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--weights is {text!r}; expected numbers separated by commas, such as 2,1."
        ) from None


def _report(out: Path) -> None:
    message(f"Wrote the model {out}")
    message(f"Next: millpond index python-stdlib --out demo-index --model {shlex.quote(str(out))}")
