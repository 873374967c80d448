"""Datasets, metrics and significance tests for comparing encoders.

``import benchmarks`` is cheap: what a name needs is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.comparing import CompareConfig, compare
    from benchmarks.config import BenchConfig
    from benchmarks.results import Result, read_results
    from benchmarks.runner import run_benchmark

__all__ = [
    "run_benchmark",
    "BenchConfig",
    "read_results",
    "Result",
    "compare",
    "CompareConfig",
]

_HOMES = {
    "run_benchmark": "benchmarks.runner",
    "BenchConfig": "benchmarks.config",
    "read_results": "benchmarks.results",
    "Result": "benchmarks.results",
    "compare": "benchmarks.comparing",
    "CompareConfig": "benchmarks.comparing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchmarks' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
