"""Options that several commands share, and the values made from them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedder.environment import Speed
from embedder.models.names import DEFAULT_MODEL
from retrieval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from indexes.writing import Engine


def option(
    metavar: str,
    help: str = "",
    *names: str,
    shown: bool | str = True,
    panel: str | None = None,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """Return what Typer has to know of an option that takes a value.

    Parameters
    ----------
    names : as they are typed; by default the parameter's own, behind "--".
    shown : the default in words, or whether the value is shown as it.
    panel : the heading in ``--help``.
    """
    return typer.Option(
        *names,
        metavar=metavar,
        help=help or None,
        show_default=shown,
        rich_help_panel=panel,
        min=min,
        max=max,
    )


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """Return what Typer has to know of an option without a value."""
    return typer.Option(name, help=help, rich_help_panel=panel)


def argument(metavar: str, help: str, *, shown: bool = True) -> Any:
    """Return what Typer has to know of an argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=shown)


FolderArgument = Annotated[Path, argument("DIR", "The index folder.")]
ResultsArgument = Annotated[Path, argument("RESULTS", "The folder that 'millpond bench' wrote.")]
ConfigArgument = Annotated[
    Path | None, argument("CONFIG", "A TOML file; --example prints one.", shown=False)
]
ModelOption = Annotated[
    str | None,
    option(
        "MODEL",
        "A base ('millpond models'), BASE:POOLING+ATTENTION or BASE:model1 to model5 "
        "('millpond variants'). BASE may be a model folder or a .gguf file. st:NAME and encoders "
        "(BERT, XLM-R ...) are computed by sentence-transformers.",
        "--model",
        "-m",
        shown=DEFAULT_MODEL,
    ),
]
IndexModelOption = Annotated[
    str | None, option("MODEL", "", "--model", "-m", shown="the model that made the index")
]
NewModelOption = Annotated[Path, option("DIR", "The new model's folder.", "--out", "-o")]
DeviceOption = Annotated[
    str | None, option("DEVICE", "cuda, mps or cpu.", "--device", shown="the best available")
]
InstructionOption = Annotated[
    str | None,
    option(
        "TEXT",
        "What the queries ask for; fills the model's query template, such as "
        "Instruct: TEXT, Query: ...",
        "--instruction",
        shown="the model's own query prompt",
    ),
]
TrustOption = Annotated[
    bool,
    flag(
        "--trust-remote-code",
        "Let sentence-transformers run Python code that comes with the model.",
    ),
]
SpeedOption = Annotated[
    Speed,
    typer.Option("--speed", help="exact, or fast: int8 on CPUs, whose vectors differ slightly."),
]
IndexSpeedOption = Annotated[
    Speed | None,
    typer.Option(
        "--speed",
        help="exact, or fast: int8 on CPUs. It must be the speed that the index was made with.",
        show_default="as the index was made",
    ),
]
RestartOption = Annotated[
    bool, flag("--restart", "Discard what an unfinished run embedded and start over.")
]
SkipBadOption = Annotated[
    bool, flag("--skip-bad", "Skip and count bad records instead of stopping at the first.")
]
JsonOption = Annotated[bool, flag("--json", "Print JSON, one object per line.")]

OVERLAP_SHARE = 8
"""Passages overlap by an eighth, if not told otherwise."""
TOKENS, OVERLAP = "tokens", "overlap"

PassagesOption = Annotated[
    int | None,
    option(
        "TOKENS",
        "Split long documents into passages of at most this many tokens; a hit shows the best one.",
        "--passages",
        min=1,
        shown="whole documents; 90 if more than a tenth of them are too long",
    ),
]
WholeOption = Annotated[
    bool,
    flag(
        "--whole",
        "Embed each document once, even if more than a tenth of them are longer than the "
        "model reads.",
    ),
]
OverlapOption = Annotated[
    int | None,
    option(
        "TOKENS",
        "How many tokens a passage shares with the one before.",
        "--overlap",
        min=0,
        shown=f"an {OVERLAP_SHARE}th of --passages",
    ),
]

ArmsOption = Annotated[
    str | None,
    option(
        "ARMS",
        "What the index is searched by: dense,lexical (meaning and words), or dense alone.",
        "--arms",
        shown="dense,lexical",
    ),
]
LanguageOption = Annotated[
    str | None,
    option(
        "NAME",
        "Of the words: english, german ..., or none for code and identifiers.",
        "--language",
        shown="detected over the first 1,000 documents",
    ),
]

ENGINES = ("local", "ray")

EngineOption = Annotated[
    str, option("NAME", "What runs the model: local, or ray for a cluster.", "--engine")
]
AddressOption = Annotated[
    str | None,
    option(
        "HOST:PORT",
        "With --engine ray: a running cluster (auto, HOST:6379, ray://HOST:10001).",
        "--address",
        shown="this machine",
    ),
]
WorkersOption = Annotated[
    int | None,
    option(
        "N",
        "With --engine ray: how many copies of the model to load.",
        "--workers",
        min=1,
        shown="what fits",
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
