"""How many tokens a base can read, as its configuration says it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from embedder.variants import VariantSpec
from retrieval.errors import ModelError
from retrieval.protocols import Notify

__all__ = ["cap_tokens", "count_positions"]

_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "context_length",
    "max_target_positions",
)
"""What families of models call it."""

_LEAST = 4
"""Tokens that a VariantSpec allows at least."""


def count_positions(config: Any) -> int | None:
    """Return the longest input that a configuration of transformers names, in tokens, or None."""
    found = [getattr(config, name, None) for name in _NAMES]
    return min((n for n in found if type(n) is int and n > 0), default=None)


def cap_tokens(spec: VariantSpec, config: Any, notify: Notify) -> VariantSpec:
    """Return the spec with no more tokens than its base has positions; one line says so.

    Rotary embeddings reach any position, so a base with them keeps what was asked for.

    Raises
    ------
    ModelError : the base has fewer positions than any text needs.
    """
    most = count_positions(config)
    if most is None or most >= spec.max_tokens or getattr(config, "rope_parameters", None):
        return spec
    if most < _LEAST:
        raise ModelError(
            f"{spec.base}: its config.json gives it {most} positions; expected {_LEAST} or more."
        )
    notify(
        f"Warning: {spec.base} has {most} positions, so texts are cut at {most} tokens, not at "
        f"{spec.max_tokens}."
    )
    return replace(spec, max_tokens=most)
