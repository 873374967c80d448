"""The options that a model's name can carry, and the kind of each. Imports no torch."""

from __future__ import annotations

from typing import Any

from retrieval.errors import UsageError

__all__ = ["OPTIONS", "SPEC_OPTIONS", "parse_option"]

SPEC_OPTIONS: dict[str, type] = {
    "base_layers": int,
    "query_prompt": str,
    "document_prompt": str,
    "max_tokens": int,
    "dimension": int,
    "normalize": bool,
    "chat_template": bool,
    "lowercase": bool,
}
OPTIONS: dict[str, type] = SPEC_OPTIONS | {
    "latents": int,
    "heads": int,
    "head_width": int,
    "feedforward_multiple": int,
    "layers": tuple,
    "layer_weights": bool,
    "match_layers": bool,
    "reads": str,
    "init": str,
    "seed": int,
}


def parse_option(name: str, value: str) -> Any:
    """Return an option's value, read by the kind of its field.

    Raises
    ------
    UsageError : the value is of another kind.
    """
    kind = OPTIONS[name]
    if kind is str:
        return value
    if kind is bool and value in ("true", "false"):
        return value == "true"
    try:
        if kind is int:
            return int(value)
        if kind is tuple:
            return tuple(int(part) for part in value.split("/"))
    except ValueError:
        pass
    accepted = {int: "a whole number", bool: "true or false", tuple: "whole numbers as 1/2/3"}
    raise UsageError(f"The model option {name} is {value!r}; {accepted[kind]} is accepted.")
