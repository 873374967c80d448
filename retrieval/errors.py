"""Every error that millpond raises on purpose.

The whole tree::

    MillpondError
    |-- UsageError                  the request cannot be carried out as typed (exit code 2)
    |   |-- UnknownNameError        no variant, base, backend or option has this name
    |   |-- SourceNotFoundError     a file or folder that was named is not there
    |   |-- RecordError             one record of an input file is bad; carries file and line
    |   |   `-- DuplicateIdError    an id that an earlier record already has
    |   |-- EmptyCorpusError        no document at all was read
    |   |-- IndexExistsError        the folder already holds an index
    |   `-- FingerprintError        query and index were made by different models
    `-- FailureError                the request was sound, the machine or the data was not (exit 1)
        |-- DownloadError           a download failed or did not match its checksum
        |-- ModelError              a model cannot be loaded or does not behave as its spec says
        |   `-- AttentionProbeError attention is not what the spec asks for
        |-- IndexCorruptError       an index folder is damaged or half written
        |-- VectorError             vectors of a wrong shape, or with NaN or infinity
        |-- StorageError            the disk is full or not writable
        |-- EndpointError           a server that was named does not answer as its API says
        `-- MissingDependencyError  an optional package is not installed

A message says what arrived, what is expected, and what to type next. Libraries raise; only
``cli`` prints and exits. ``Registry``, ``import_optional``, ``check_fork`` and ``check_type``
raise for many.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, NoReturn, TypeAlias, TypeVar

__all__ = [
    "AttentionProbeError",
    "DownloadError",
    "DuplicateIdError",
    "EmptyCorpusError",
    "EndpointError",
    "FailureError",
    "FingerprintError",
    "IndexCorruptError",
    "IndexExistsError",
    "MillpondError",
    "MissingDependencyError",
    "ModelError",
    "RecordError",
    "Registry",
    "SourceNotFoundError",
    "StorageError",
    "UnknownNameError",
    "UsageError",
    "VectorError",
    "check_fork",
    "check_type",
    "count_noun",
    "import_optional",
]


class MillpondError(Exception):
    """Root of all errors that millpond raises on purpose."""


class UsageError(MillpondError):
    """The request cannot be carried out as typed."""


class UnknownNameError(UsageError):
    """No registered thing of this kind has this name.

    Parameters
    ----------
    kind : what was looked up, in the singular ("pooling", "base model").
    name : what arrived.
    known : the names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        close = difflib.get_close_matches(str(name), self.known, n=1)
        nearest = f" Did you mean {close[0]!r}?" if close else ""
        tail = f" {hint}" if hint else ""
        listing = ", ".join(self.known)
        super().__init__(f"Unknown {kind} {name!r}.{nearest} Accepted: {listing}.{tail}")


Named = TypeVar("Named")


class Registry(dict[str, Named]):
    """Things of a kind ("pooling") by name; another name raises UnknownNameError."""

    def __init__(self, kind: str, things: Mapping[str, Named]) -> None:
        super().__init__(things)
        self.kind = kind

    def __missing__(self, name: str) -> NoReturn:
        raise UnknownNameError(self.kind, name, self)

    def check(self, name: str) -> None:
        """Raise UnknownNameError unless the name is there."""
        self[name]


class SourceNotFoundError(UsageError):
    """A file or folder that was named is not there."""


class RecordError(UsageError):
    """One record of an input file is bad.

    Parameters
    ----------
    source : the file as the user named it.
    line : 1-based line, row or record number; None for records without a position.
    problem : what is wrong, as a clause without a full stop.
    """

    def __init__(self, source: str, line: int | None, problem: str) -> None:
        self.source = source
        self.line = line
        self.problem = problem
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {problem}")


class DuplicateIdError(RecordError):
    """A record whose id an earlier record already has."""


class EmptyCorpusError(UsageError):
    """No document at all was read."""


class IndexExistsError(UsageError):
    """The folder already holds an index."""


class FingerprintError(UsageError):
    """Query and index were made by different models or settings."""


class FailureError(MillpondError):
    """The request was sound; the machine, the data or the network was not."""


class DownloadError(FailureError):
    """A download failed, or what arrived does not match its checksum."""


class ModelError(FailureError):
    """A model cannot be loaded, or does not behave as its spec says."""


class AttentionProbeError(ModelError):
    """The loaded model's attention is not what the spec asks for."""


class IndexCorruptError(FailureError):
    """An index folder is damaged or half written."""


class VectorError(FailureError):
    """Vectors of a wrong shape or dtype, or with NaN or infinite entries."""


class StorageError(FailureError):
    """The disk is full, or a file cannot be written or read."""


class EndpointError(FailureError):
    """A server that was named does not answer, or not as its API says."""


class MissingDependencyError(FailureError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed. Type: {install}")


def import_optional(module: str, purpose: str, install: str, package: str = "") -> Any:
    """Return a module that an optional package brings.

    Parameters
    ----------
    purpose : what needs it, for the message.
    install : what to type.
    package : how it is called where it is installed from, if not like the module.

    Raises
    ------
    MissingDependencyError : it is not installed.
    """
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or top).partition(".")[0] != top:
            raise
        raise MissingDependencyError(package or top, purpose, install) from None


def count_noun(number: int, one: str, several: str = "") -> str:
    """Return "1 pair" or "1,234 pairs".

    Parameters
    ----------
    several : the plural, where it is more than ``one`` with an "s" ("1 query", "2 queries"); it
        may hold a verb ("1 row was", "2 rows were").
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"


_STATE = {"computed": False, "orphaned": False}
"""Whether this process has computed with a pool, and whether one before the fork had."""


Kinds: TypeAlias = type | UnionType | tuple[type, ...]


def check_type(what: str, value: object, kinds: Kinds, expected: str) -> None:
    """Raise UsageError for a value of another type, such as a number in place of a path."""
    if not isinstance(value, kinds):
        raise UsageError(f"{what} is of type {type(value).__name__}; expected {expected}.")


def check_fork(what: str, threads: int) -> None:
    """Note that this process computes, or refuse to where it is a fork of one that did.

    OpenMP, which torch, FAISS and our own kernels compute with, keeps a pool of threads. A fork
    copies the process and none of its threads, so the child would wait for them for ever. One
    thread needs no pool, so it computes in any process.

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
