"""Ray: how many workers run where, and the connection to the cluster."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from retrieval.errors import FailureError, UsageError, import_optional

USAGE_VARIABLE = "RAY_USAGE_STATS_ENABLED"


@dataclass(frozen=True)
class RayConfig:
    """Where the workers run, how many there are, and how often one may die.

    The driver holds at most ``workers x chunks_in_flight`` chunks that are not written yet,
    documents and vectors; this, and not the corpus, decides its memory.

    Attributes
    ----------
    address : of a running cluster ("auto" for the one on this machine, "HOST:6379",
        "ray://HOST:10001"). None starts Ray here and ends it afterwards, unless this process has
        started it already.
    workers : how many models are loaded, each in a process of its own; by default as many as the
        cluster has GPUs, or CPUs where it has no GPU, divided by what one worker asks for.
    cpus_per_worker : CPUs that Ray sets aside for a worker; torch in it uses as many threads.
    gpus_per_worker : GPUs likewise, 0.5 for two workers on one. By default 1 where the cluster has
        a GPU, else 0.
    chunks_in_flight : how many chunks a worker has before it, the one in work included.
    retries : how often a chunk is embedded again after the worker that had it died.
    restarts : how often each worker is started again in the whole run.
    start_seconds : how long all workers together may take until their models are loaded.
    quiet : keep Ray's own messages, and what the workers print, from the terminal.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    chunks_in_flight: int = 3
    retries: int = 3
    restarts: int = 100
    start_seconds: float = 900.0
    quiet: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for a number that cannot be."""
        if self.address is not None and not self.address.strip():
            raise UsageError("address is empty; expected auto, HOST:6379 or ray://HOST:10001.")
        least: dict[str, tuple[float | None, float]] = {
            "workers": (self.workers, 1),
            "cpus_per_worker": (self.cpus_per_worker, 0),
            "gpus_per_worker": (self.gpus_per_worker, 0),
            "chunks_in_flight": (self.chunks_in_flight, 1),
            "retries": (self.retries, 0),
            "restarts": (self.restarts, 0),
        }
        for name, (value, bound) in least.items():
            if value is not None and not bound <= value < float("inf"):
                raise UsageError(f"{name} is {value}; it must be {bound} or more.")
        if not 0 < self.start_seconds < float("inf"):
            raise UsageError(f"start_seconds is {self.start_seconds}; it must be above 0.")

    def count_workers(self, resources: Mapping[str, float]) -> tuple[int, float]:
        """Return how many workers there are and how many GPUs each has, for a cluster's resources.

        Raises
        ------
        UsageError : the resources are too few for one worker, and none are asked for by number.
        """
        there = resources.get("GPU", 0.0)
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if there >= 1 else 0.0
        if self.workers is not None:
            return self.workers, gpus
        fits = [int(there // gpus)] if gpus else []
        if self.cpus_per_worker:
            fits.append(int(resources.get("CPU", 0.0) // self.cpus_per_worker))
        count = min(fits, default=1)
        if count < 1:
            raise UsageError(
                f"The Ray cluster has {resources.get('CPU', 0.0):g} CPUs and {there:g} GPUs; a "
                f"worker asks for {self.cpus_per_worker:g} and {gpus:g}. Ask for less, or give a "
                f"number of workers and let the cluster grow."
            )
        return count, gpus


def load_ray() -> Any:
    """Return the ray module.

    Raises
    ------
    MissingDependencyError : it is not installed.
    """
    return import_optional("ray", "The ray engine", "pip install 'millpond[ray]'")


@contextmanager
def ray_session(config: RayConfig) -> Iterator[Any]:
    """Yield the ray module, connected; on leaving, end Ray if it was started or joined here.

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
