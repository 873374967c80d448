"""What is used where the user names nothing. Imports nothing, so that ``--help`` can show it."""

from __future__ import annotations

__all__ = ["DEFAULT_MODEL", "DEFAULT_VARIANT"]

DEFAULT_VARIANT = "mean+causal"
"""The variant of a base that is named alone."""

DEFAULT_MODEL = "smollm2-135m:prompt_eos+causal,max_tokens=64"
"""The model where none is named: the best untrained one of docs/untrained.md."""
