"""Datasets, metrics and significance tests for comparing encoders.

``import benchmarks`` is cheap: what a name needs is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.scoring.config import BenchConfig
    from benchmarks.scoring.results import Result, read_results
    from benchmarks.scoring.runner import run_benchmark
    from benchmarks.significance.compare import compare
    from benchmarks.significance.comparison import CompareConfig

__all__ = [
    "run_benchmark",
    "BenchConfig",
    "read_results",
    "Result",
    "compare",
    "CompareConfig",
]

_HOMES = {
    "run_benchmark": "benchmarks.scoring.runner",
    "BenchConfig": "benchmarks.scoring.config",
    "read_results": "benchmarks.scoring.results",
    "Result": "benchmarks.scoring.results",
    "compare": "benchmarks.significance.compare",
    "CompareConfig": "benchmarks.significance.comparison",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchmarks' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
