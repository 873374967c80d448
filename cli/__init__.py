"""The ``millpond`` command: the only package that prints and exits."""

from cli.app import app

__all__ = ["app"]
