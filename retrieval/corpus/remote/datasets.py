"""Data sets of a hub as records: ``hf://datasets/OWNER/NAME``, streamed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from retrieval.corpus.remote.addresses import EXTRA
from retrieval.corpus.values import Row
from retrieval.errors import (
    MissingDependencyError,
    SourceNotFoundError,
    StorageError,
    UsageError,
)

__all__ = ["dataset_name", "dataset_rows"]

_NAME = re.compile(
    r"hf://datasets/(?P<name>[^/?@]+/[^/?@]+)(@(?P<revision>[^/?]+))?/?(\?(?P<query>.*))?"
)
_OPTIONS = ("config", "split")


def dataset_name(name: str) -> re.Match[str] | None:
    """Return the parts of an address that names a data set and no file in it, else None."""
    return _NAME.fullmatch(name)


def dataset_rows(name: str, note: Callable[[str], None]) -> Iterator[Row]:
    """Yield the records of a data set, downloaded as they are read.

    ``hf://datasets/OWNER/NAME@REVISION?config=NAME&split=NAME``; by default the split "train", or
    the only one. A line says which split was taken of several.

    Raises
    ------
    UsageError : no such configuration or split.
    SourceNotFoundError, StorageError : it is not there, or cannot be reached.
    MissingDependencyError : the package datasets is not installed.
    """
    found = _NAME.fullmatch(name)
    assert found is not None
    options = dict(parse_qsl(found["query"] or ""))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise UsageError(f"{name}: {unknown[0]!r} arrived; expected config and split, no others.")
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise MissingDependencyError("datasets", f"{name}: reading it", EXTRA) from None
    splits = _load(datasets, name, found["name"], options.get("config"), found["revision"])
    wanted = options.get("split") or ("train" if "train" in splits else next(iter(splits)))
    if wanted not in splits:
        raise UsageError(f"{name}: there is no split {wanted!r}; it has {', '.join(splits)}.")
    if len(splits) > 1 and "split" not in options:
        others = ", ".join(split for split in splits if split != wanted)
        note(f"{name}: read the split {wanted!r}. Others: {others} (add ?split=NAME).")
    for number, record in enumerate(splits[wanted], start=1):
        yield Row(name, number, record)


def _load(datasets: Any, shown: str, name: str, config: str | None, revision: str | None) -> Any:
    try:
        return datasets.load_dataset(name, config, revision=revision, streaming=True)
    except ValueError as error:  # an unknown configuration, or none named of several
        raise UsageError(f"{shown}: {' '.join(str(error).split())}") from None
    except FileNotFoundError:
        raise SourceNotFoundError(f"{shown}: there is no such data set. Check the name.") from None
    except Exception as error:  # of the network, in many classes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise StorageError(f"{shown}: cannot be fetched ({reason}).") from error
