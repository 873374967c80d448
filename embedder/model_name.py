"""The text that names a model: ``BASE[:POOLING+ATTENTION|:model1][,OPTION=VALUE...]``."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from embedder.name_options import OPTIONS, SPEC_OPTIONS, parse_option
from embedder.pooling import PoolingOptions
from embedder.variants import VariantSpec, get_variant
from retrieval.errors import UnknownNameError, UsageError

__all__ = ["format_model_name", "parse_model_name"]

_NAME = re.compile(
    r"(?P<base>.+?):(?P<variant>[A-Za-z0-9_]+(?:\+[A-Za-z0-9_]+)?)"
    r"(?P<options>(?:,[a-z_]+=[^,]*)*)"
)
_REVISION = re.compile(r"(?P<base>.+)@(?P<revision>[\w.\-]+)")


def parse_model_name(text: str, default_variant: str) -> VariantSpec:
    """Return the spec for ``BASE[:POOLING+ATTENTION|:model1][,OPTION=VALUE...]``.

    A hub id may carry ``@REVISION`` before the colon. Options are the fields of VariantSpec and
    PoolingOptions, such as ``smollm2-135m:mean+causal,base_layers=12,max_tokens=128``; a list of
    numbers is written 1/2/3. A base that is a path is made absolute, so that the name means the
    same from another folder.

    Raises
    ------
    UnknownNameError : no such variant or option.
    UsageError : no base, or an option's value is not of its type.
    """
    match = _NAME.fullmatch(text)
    base, variant_name, options = match.groups() if match else (text, default_variant, "")
    if not base:
        raise UsageError(f"The model {text!r} names no base. Type BASE:POOLING+ATTENTION.")
    variant = get_variant(variant_name)
    revision = None
    path = Path(base).expanduser()
    if path.exists():
        base = str(path.resolve())
    elif at := _REVISION.fullmatch(base):
        base, revision = at["base"], at["revision"]
    settings: dict[str, Any] = {}
    pooling: dict[str, Any] = {}
    for name, value in (option.split("=", 1) for option in options.split(",")[1:]):
        if name == "whiten":
            raise UsageError(
                "A whitening is fitted on texts and saved with the model. Type: "
                f"millpond whiten {base} --corpus CORPUS --out DIR."
            )
        if name not in OPTIONS:
            raise UnknownNameError("model option", name, OPTIONS)
        target = settings if name in SPEC_OPTIONS else pooling
        target[name] = parse_option(name, value)
    return VariantSpec(
        base=base,
        revision=revision,
        pooling=variant.pooling,
        attention=variant.attention,
        pooling_options=PoolingOptions(**pooling),
        **settings,
    )


def format_model_name(spec: VariantSpec) -> str:
    """Return the text that ``parse_model_name`` reads back as ``spec``.

    Options at their defaults are left out. A prompt with a comma cannot be written this way.
    """
    at = f"@{spec.revision}" if spec.revision else ""
    defaults = {f.name: f.default for f in fields(spec)}
    changed = {
        name: getattr(spec, name) for name in SPEC_OPTIONS if getattr(spec, name) != defaults[name]
    } | spec.pooling_options.changed()
    options = "".join(f",{name}={_write_value(value)}" for name, value in changed.items())
    return f"{spec.base}{at}:{spec.pooling}+{spec.attention}{options}"


def _write_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
