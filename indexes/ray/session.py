"""A connection to Ray for as long as a build needs one, without Ray's noise."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from indexes.ray.config import RayConfig
from retrieval.errors import FailureError, MissingDependencyError

__all__ = ["load_ray", "ray_session", "say"]

USAGE_VARIABLE = "RAY_USAGE_STATS_ENABLED"


def load_ray() -> Any:
    """Return the ray module.

    Raises
    ------
    MissingDependencyError : it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        install = "pip install 'millpond[ray]'"
        raise MissingDependencyError("ray", "The ray engine", install) from None


@contextmanager
def ray_session(config: RayConfig) -> Iterator[Any]:
    """Give the ray module, connected; on leaving, end Ray if it was started or joined here.

    Raises
    ------
    FailureError : no cluster answers at the address, or it runs other versions.
    """
    ray = load_ray()
    with _muted(ray, config.quiet):
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, config)
        try:
            yield ray
        finally:
            if ours:
                ray.shutdown()


def _connect(ray: Any, config: RayConfig) -> None:
    place = {"address": config.address or "local"}  # so that no RAY_ADDRESS decides
    own = {} if config.address else {"include_dashboard": False}
    level = logging.ERROR if config.quiet else logging.INFO
    try:
        with _without_usage_report(), warnings.catch_warnings():
            if config.quiet:
                warnings.simplefilter("ignore")  # advice on Ray's next versions
            ray.init(**place, **own, log_to_driver=not config.quiet, logging_level=level)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()  # of what was started before it failed
        advice = (
            f"Is a cluster running at {config.address}, with the same versions of Python and Ray? "
            f"One with tokens wants RAY_AUTH_MODE=token in the environment, and its token. Leave "
            f"the address out to run on this machine alone."
            if config.address
            else "Is there room in the temporary folder and in /dev/shm?"
        )
        raise FailureError(f"Ray cannot be reached: {say(error)}. {advice}") from error


def say(error: BaseException) -> str:
    """Return the first and the last line of a message of Ray's, without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    picked = list(dict.fromkeys([*lines[:1], *lines[-1:]])) or [type(error).__name__]
    return " ... ".join(picked).rstrip(".")


@contextmanager
def _without_usage_report() -> Iterator[None]:
    """Keep a Ray that starts now from reporting its use over the network, unless told to."""
    before = os.environ.get(USAGE_VARIABLE)
    os.environ.setdefault(USAGE_VARIABLE, "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(USAGE_VARIABLE, None)


@contextmanager
def _muted(ray: Any, quiet: bool) -> Iterator[None]:
    """Keep Ray's notes on dead workers from stdout, where our data goes.

    ``log_to_driver=False`` leaves them on; the switch is the one that Ray's debugger uses.
    """
    worker = ray._private.worker
    before = getattr(worker, "_worker_logs_enabled", None)
    if quiet and before is not None:
        worker._worker_logs_enabled = False
    try:
        yield
    finally:
        if quiet and before is not None:
            worker._worker_logs_enabled = before
