"""Options that several commands share, and the values made from them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedder.environment import Speed
from embedder.models.names import DEFAULT_MODEL
from retrieval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from indexes.writing import Engine

__all__ = [
    "AddressOption",
    "ArmsOption",
    "ConfigArgument",
    "DeviceOption",
    "EngineOption",
    "FolderArgument",
    "IndexModelOption",
    "RestartOption",
    "ResultsArgument",
    "IndexSpeedOption",
    "InstructionOption",
    "JsonOption",
    "LanguageOption",
    "ModelOption",
    "NewModelOption",
    "OverlapOption",
    "PassagesOption",
    "SkipBadOption",
    "SpeedOption",
    "TrustOption",
    "WholeOption",
    "WorkersOption",
    "choose_arms",
    "choose_engine",
    "choose_passages",
]


FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")]
ResultsArgument = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="The folder that 'millpond bench' wrote.")
]
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
        "('millpond variants'). BASE may be a model folder or a .gguf file. st:NAME and encoders "
        "(BERT, XLM-R ...) are computed by sentence-transformers.",
        show_default=DEFAULT_MODEL,
    ),
]
IndexModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", show_default="the model that made the index"),
]
NewModelOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="The new model's folder.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cuda, mps or cpu.", show_default="the best available"
    ),
]
InstructionOption = Annotated[
    str | None,
    typer.Option(
        "--instruction",
        metavar="TEXT",
        help="What the queries ask for; fills the model's query template, such as "
        "Instruct: TEXT, Query: ...",
        show_default="the model's own query prompt",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let sentence-transformers run Python code that comes with the model.",
    ),
]
SpeedOption = Annotated[
    Speed,
    typer.Option(
        "--speed",
        help="exact, or fast: int8 on CPUs with VNNI, whose vectors differ slightly.",
    ),
]
IndexSpeedOption = Annotated[
    Speed | None,
    typer.Option(
        "--speed",
        help="exact, or fast: int8 on CPUs with VNNI. It must be the speed that the index "
        "was made with.",
        show_default="as the index was made",
    ),
]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Discard what an unfinished run embedded and start over.")
]
SkipBadOption = Annotated[
    bool,
    typer.Option("--skip-bad", help="Skip and count bad records instead of stopping at the first."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]

OVERLAP_SHARE = 8
"""Passages overlap by an eighth, if not told otherwise."""
TOKENS, OVERLAP = "tokens", "overlap"

PassagesOption = Annotated[
    int | None,
    typer.Option(
        "--passages",
        metavar="TOKENS",
        min=1,
        help="Split long documents into passages of at most this many tokens; a hit shows "
        "the best one.",
        show_default="whole documents; 90 if more than a tenth of them are too long",
    ),
]
WholeOption = Annotated[
    bool,
    typer.Option(
        "--whole",
        help="Embed each document once, even if more than a tenth of them are longer than the "
        "model reads.",
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        metavar="TOKENS",
        min=0,
        help="How many tokens a passage shares with the one before.",
        show_default=f"an {OVERLAP_SHARE}th of --passages",
    ),
]

ArmsOption = Annotated[
    str | None,
    typer.Option(
        "--arms",
        metavar="ARMS",
        help="What the index is searched by: dense,lexical (meaning and words), or dense alone.",
        show_default="dense,lexical",
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="NAME",
        help="Of the words: english, german ..., or none for code and identifiers.",
        show_default="detected over the first 1,000 documents",
    ),
]

ENGINES = ("local", "ray")

EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", help="What runs the model: local, or ray for a cluster."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="With --engine ray: a running cluster (auto, HOST:6379, ray://HOST:10001).",
        show_default="this machine",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="With --engine ray: how many copies of the model to load.",
        show_default="what fits",
    ),
]


def choose_passages(tokens: int | None, overlap: int | None, whole: bool = False) -> dict[str, int]:
    """Return the passage settings for the manifest; empty if documents stay whole.

    Raises
    ------
    UsageError : they do not go together, or a number is out of range.
    """
    if whole and tokens is not None:
        raise UsageError("--whole and --passages exclude each other. Leave one of them out.")
    if tokens is None:
        if overlap is not None:
            raise UsageError("--overlap goes with --passages TOKENS. Leave it out, or type both.")
        return {}
    from embedder.splitting import check_passages

    shared = tokens // OVERLAP_SHARE if overlap is None else overlap
    check_passages(tokens, shared)
    return {TOKENS: tokens, OVERLAP: shared}


def choose_arms(typed: str) -> tuple[str, ...]:
    """Return the arms that ``--arms`` names; ``IndexConfig`` checks them."""
    return tuple(name.strip() for name in typed.split(",") if name.strip())


def choose_engine(
    engine: str,
    address: str | None,
    workers: int | None,
    model: str | None,
    device: str | None,
    speed: str = "exact",
    *,
    trust: bool = False,
) -> Engine | None:
    """Return the engine that was asked for, None for this process.

    Raises
    ------
    UnknownNameError : no such engine.
    UsageError : options of Ray without it.
    MissingDependencyError : ray is not installed.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "local":
        if address is not None or workers is not None:
            named = "--address" if address is not None else "--workers"
            raise UsageError(f"{named} goes with --engine ray. Add that, or leave {named} out.")
        return None
    from embedder.loading import load_encoder
    from indexes.engines.ray import RayConfig, ray_engine

    factory = partial(load_encoder, model, device=device, speed=speed, trust_remote_code=trust)
    return ray_engine(factory, RayConfig(address=address, workers=workers))
