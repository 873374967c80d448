"""Says that a forked child cannot compute, instead of letting it wait for ever.

OpenMP, which torch, FAISS and our own kernels compute with, keeps a pool of threads. A fork copies
the process and none of its threads, so the child waits for a pool that is not there.
"""

from __future__ import annotations

import os

from retrieval.errors import UsageError

__all__ = ["check_fork"]

_STATE = {"computed": False, "orphaned": False}
"""Whether this process has computed with a pool, and whether one before the fork had."""


def check_fork(what: str, threads: int) -> None:
    """Note that this process computes, or refuse to where it is a fork of one that did.

    One thread needs no pool, so it computes in any process.

    Parameters
    ----------
    what : who computes, for the message.
    threads : how many it would compute with.

    Raises
    ------
    UsageError : this process was forked from one that had computed with several threads.
    """
    if threads <= 1:
        return
    if _STATE["orphaned"]:
        raise UsageError(
            f"{what} cannot compute in this process: it was forked from one that had computed "
            f"already, whose threads a fork does not copy, so it would hang. Start processes by "
            f'spawn: multiprocessing.get_context("spawn"), or multiprocessing_context="spawn" for '
            f"a DataLoader; or set OMP_NUM_THREADS=1 before Python starts."
        )
    _STATE["computed"] = True


def _note_fork() -> None:
    _STATE["orphaned"] = _STATE["orphaned"] or _STATE["computed"]


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_note_fork)
