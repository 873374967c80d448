"""``millpond export``: a model for ONNX Runtime or llama.cpp."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands.merge import OutOption
from cli.console import message
from cli.models import load_encoder
from retrieval.errors import UsageError

__all__ = ["export"]


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As --model of 'millpond index'.")],
    out: OutOption,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="onnx (ONNX Runtime; every pooling), or gguf (llama.cpp; eos, mean and cls).",
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
