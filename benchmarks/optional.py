"""The packages of the ``bench`` extra, imported where they are used."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from retrieval import errors


def import_optional(module: str, purpose: str) -> Any:
    """Return the imported module.

    Raises
    ------
    MissingDependencyError : it is not installed.
    """
    return errors.import_optional(module, purpose, 'pip install "millpond[bench]"')


def read_versions(*packages: str) -> dict[str, str]:
    """Return the version of each distribution that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
