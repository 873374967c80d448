"""What decides a model's vectors, as an index keeps it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from retrieval.fingerprint import Fingerprint

__all__ = ["describe_model"]

EMBEDDING_VERSION = 1
"""Part of every fingerprint; raised when the same spec and weights would give other vectors."""
_OF_SPEC = (
    "base_layers",
    "pooling",
    "attention",
    "query_prompt",
    "document_prompt",
    "max_tokens",
    "normalize",
    "chat_template",
)


def describe_model(
    name: str,
    spec: Mapping[str, Any],
    *,
    weights: str,
    dimension: int,
    trained_sha256: str | None,
    is_int8: bool = False,
) -> Fingerprint:
    """Return the fingerprint of a model.

    Parameters
    ----------
    spec : of the model, as ``spec_to_json`` gives it.
    weights : identifies the base's weights.
    trained_sha256 : identifies those that were trained beside them, if any.
    is_int8 : whether linear layers compute in int8.
    """
    trained = {"trained_weights": trained_sha256} if trained_sha256 else {}
    if is_int8:
        trained["linear_layers"] = "int8 turned"  # "int8" was without turning, until 2026-11
    # Only where it is on: models and indexes of before it existed keep their fingerprints.
    case = {"lowercase": True} if spec.get("lowercase") else {}
    return Fingerprint(
        name,
        {
            **trained,
            "weights": weights,
            **{field: spec[field] for field in _OF_SPEC},
            **case,
            "pooling_options": json.dumps(spec["pooling_options"], sort_keys=True),
            "dimension": dimension,
            "embedding_version": EMBEDDING_VERSION,
        },
    )
