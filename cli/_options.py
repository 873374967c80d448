"""Options that several commands share: one help text and one spelling each."""

from __future__ import annotations

from typing import Annotated

import typer

from cli._models import DEFAULT_MODEL_NAME

__all__ = ["DeviceOption", "JsonOption", "ModelOption", "SkipBadOption"]

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="A base ('millpond models'), BASE:POOLING+ATTENTION or BASE:model1 to model5 "
        "('millpond variants'). BASE may be a model folder or a .gguf file.",
        show_default=DEFAULT_MODEL_NAME,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cuda, mps or cpu.", show_default="the best there is"
    ),
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Count bad records and go on, instead of stopping at one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
