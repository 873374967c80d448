"""An example of a training config; a module of its own, since reading it needs no torch."""

from __future__ import annotations

from pathlib import Path

__all__ = ["example_config"]


def example_config() -> str:
    """Return a commented TOML config that runs."""
    return Path(__file__).with_name("example.toml").read_text(encoding="utf-8")
