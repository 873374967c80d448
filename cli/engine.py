"""What runs the model while a corpus is indexed: this process, or workers of Ray."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from indexes.write import Engine

__all__ = ["AddressOption", "EngineOption", "WorkersOption", "choose_engine"]

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
        help="With --engine ray: how many models are loaded.",
        show_default="what fits",
    ),
]


def choose_engine(
    engine: str,
    address: str | None,
    workers: int | None,
    model: str | None,
    device: str | None,
    speed: str = "exact",
) -> Engine | None:
    """Return the engine that was asked for, None for this process.

    Raises
    ------
    UnknownNameError : no such engine.
    UsageError : options of Ray without it.
    MissingDependencyError : ray is not installed.
    """
    from retrieval.errors import UnknownNameError, UsageError

    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "local":
        if address is not None or workers is not None:
            named = "--address" if address is not None else "--workers"
            raise UsageError(f"{named} goes with --engine ray. Add that, or leave {named} out.")
        return None
    from embedder import DEFAULT_MODEL, Embedder
    from embedder.engine.speed import check_speed
    from indexes.engines.ray import RayConfig, ray_engine

    name = model or DEFAULT_MODEL
    factory = partial(Embedder.load, name, device=device, speed=check_speed(speed))
    return ray_engine(factory, RayConfig(address=address, workers=workers))
