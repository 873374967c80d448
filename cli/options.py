"""The key of a Qdrant server, typed at the terminal."""

from __future__ import annotations

import os
import warnings
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
    "StoredKeyOption",
    "ask_key",
    "use_asked_key",
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


StoredKeyOption = Annotated[
    bool,
    typer.Option(
        "--ask-key", help="Ask for the key of the Qdrant server that holds the vectors, unseen."
    ),
]


def use_asked_key(folder: Path, asked: bool) -> None:
    """Ask for the key of the server that holds an index, where that was ``asked`` for.

    For the rest of this process it stands in the first of the environment variables that hold
    keys, which every connection reads.

    Raises
    ------
    UsageError : no server holds the vectors; there is no terminal, or nothing was typed.
    SourceNotFoundError, IndexCorruptError : there is no index in the folder.
    """
    if not asked:
        return
    from indexes import read_manifest
    from indexes.backends.qdrant.connection import API_KEY_VARIABLES
    from retrieval.errors import UsageError

    settings = read_manifest(folder).settings
    url = settings.get("url") if settings.get("mode") == "server" else None
    if url is None:
        raise UsageError(
            f"--ask-key concerns a Qdrant server, and {folder} holds its vectors itself. Leave it "
            f"out."
        )
    os.environ[API_KEY_VARIABLES[0]] = ask_key(str(url))


def ask_key(url: str) -> str:
    """Return the key that is typed at the terminal and not shown there.

    Raises
    ------
    UsageError : there is no terminal, or nothing was typed.
    """
    import getpass

    from retrieval.errors import UsageError

    instead = "put the key into the environment variable QDRANT_API_KEY"
    try:
        with warnings.catch_warnings():
            # Where it cannot hide what is typed, getpass would warn and show it.
            warnings.simplefilter("error", getpass.GetPassWarning)
            key = getpass.getpass(f"API key of {url}: ")
    except (getpass.GetPassWarning, OSError):
        raise UsageError(
            f"--ask-key needs a terminal, and there is none here. Leave it out and {instead}."
        ) from None
    except EOFError:
        key = ""
    if not key:
        raise UsageError(
            f"No key was typed. Type it when asked, or leave --ask-key out and {instead}."
        )
    return key
