"""Which millpond this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["read_version"]


def read_version() -> str:
    """Return the installed version, or "(not installed)" where a checkout runs as it is."""
    try:
        return version("millpond")
    except PackageNotFoundError:
        return "(not installed)"
