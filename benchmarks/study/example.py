"""An example of a study; a module of its own, since reading it needs no torch."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["example_study"]

_EXAMPLE = "paper-mistral-7b.toml"


def example_study() -> str:
    """Return the study of the paper, as commented TOML that runs."""
    return (files("benchmarks") / "studies" / _EXAMPLE).read_text(encoding="utf-8")
