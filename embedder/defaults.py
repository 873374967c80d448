"""What is used where the user names nothing. Imports nothing, so that ``--help`` can show it."""

from __future__ import annotations

__all__ = ["DEFAULT_MODEL", "DEFAULT_VARIANT"]

DEFAULT_VARIANT = "mean+causal"
"""The variant of a base that is named alone."""

DEFAULT_MODEL = "millpond-135m"
"""The model where none is named: the trained one that comes with millpond."""
