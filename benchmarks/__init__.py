"""Datasets, metrics and significance tests for comparing encoders.

``import benchmarks`` is cheap: what a name needs is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.config import BenchConfig
    from benchmarks.runner import run_benchmark

__all__ = ["run_benchmark", "BenchConfig"]

_HOMES = {
    "run_benchmark": "benchmarks.runner",
    "BenchConfig": "benchmarks.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchmarks' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
