"""The packages of the ``bench`` extra, imported where they are used."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

from retrieval.errors import MissingDependencyError

__all__ = ["import_optional", "read_versions"]


def import_optional(module: str, purpose: str) -> Any:
    """Return the imported module.

    Raises
    ------
    MissingDependencyError : it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            raise
        raise MissingDependencyError(package, purpose, 'pip install "millpond[bench]"') from error


def read_versions(*packages: str) -> dict[str, str]:
    """Return the version of each distribution that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
