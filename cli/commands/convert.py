"""``millpond merge``, ``soup``, ``import`` and ``export``: one model folder made from others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cli.console import message
from cli.models import load_encoder
from cli.options import NewModelOption, argument, flag, option
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from embedder.models.saving import WeightsDtype

DtypeOption = Annotated[
    str, option("DTYPE", "float32, or bfloat16: half the size.", "--weights-dtype")
]


def merge(
    model: Annotated[Path, argument("MODEL_DIR", "A folder that 'millpond train' wrote.")],
    out: NewModelOption,
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
    report_model(out)


def soup(
    models: Annotated[
        list[Path], argument("MODEL_DIR...", "Two or more models of one spec and base.")
    ],
    out: NewModelOption,
    weights: Annotated[
        str | None, option("W,W,...", "One weight per model.", shown="all equal")
    ] = None,
    exact: Annotated[
        bool, flag("--exact", "Average the LoRA updates, not their factors; ranks add up.")
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
    report_model(out)


def _parse_weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--weights is {text!r}; expected numbers separated by commas, such as 2,1."
        ) from None


def import_(
    checkpoint: Annotated[
        Path,
        argument(
            "CHECKPOINT",
            "A folder that a trainer of PoolingAndAttn wrote: adapter and attn_pool.pt.",
        ),
    ],
    out: NewModelOption,
    variant: Annotated[str, option("NAME", "Which of the paper's designs: model1 to model5.")],
    base: Annotated[
        str | None,
        option(
            "BASE",
            "Its base: a folder, hub id or built-in base.",
            shown="as its adapter_config.json says",
        ),
    ] = None,
    heads: Annotated[int, option("N", "Attention heads of the trainable pooling.", min=1)] = 32,
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
    report_model(out)


def export(
    model: Annotated[str, argument("MODEL", "As --model of 'millpond index'.")],
    out: NewModelOption,
    format: Annotated[
        str,
        option(
            "NAME",
            "onnx (ONNX Runtime; every pooling), or gguf (llama.cpp; eos, mean and cls).",
            "--format",
            "-f",
        ),
    ] = "onnx",
) -> None:
    """Write a model for ONNX Runtime or llama.cpp.

    Neither millpond nor torch is needed to embed with it. An ONNX graph takes token ids and a mask
    and gives the vectors; the tokenizer is beside it. Both are compared with the model before the
    folder appears.

    \b
    Examples:
      millpond export millpond-135m --out my-onnx
      millpond export my-model --format gguf --out my-gguf
    """
    from embedder import Embedder
    from embedder.export import export_model
    from embedder.models.saving import check_new_folder

    check_new_folder(out)
    encoder = load_encoder(model, "cpu")
    if not isinstance(encoder, Embedder):
        raise UsageError(
            f"{model} is computed by sentence-transformers, which exports it itself: "
            f"SentenceTransformer({model.removeprefix('st:')!r}, backend='onnx')."
        )
    export_model(encoder, format, out, message)
    message(f"Wrote {out}; docs/export.md shows how to embed with it.")


def report_model(out: Path, more: str = "") -> None:
    """Say what was written, and what to do with it."""
    message(f"Wrote the model {out}{more}")
    message(f"Next: millpond index python-stdlib --out demo-index --model {shlex.quote(str(out))}")
