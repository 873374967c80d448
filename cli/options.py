"""Options that several commands share, and what follows from them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.models import DEFAULT_MODEL_NAME

__all__ = [
    "ConfigArgument",
    "DeviceOption",
    "JsonOption",
    "ModelOption",
    "SkipBadOption",
    "IndexSpeedOption",
    "SpeedName",
    "SpeedOption",
]


class SpeedName(StrEnum):
    """What --speed accepts; a test holds it equal to ``embedder.engine.speed.SPEEDS``."""

    EXACT = "exact"
    FAST = "fast"


ConfigArgument = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="A TOML file; --example prints one.", show_default=False),
]
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
SpeedOption = Annotated[
    SpeedName,
    typer.Option(
        "--speed",
        help="exact, or fast: int8 where the CPU has VNNI, whose vectors differ a little, and "
        "compiled layers in long runs.",
    ),
]
IndexSpeedOption = Annotated[
    SpeedName | None,
    typer.Option(
        "--speed",
        help="exact, or fast: int8 where the CPU has VNNI. Vectors have to be made as those of "
        "the index were.",
        show_default="as the index was made",
    ),
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Count bad records and go on, instead of stopping at one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
