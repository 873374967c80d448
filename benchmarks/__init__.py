"""Datasets, metrics and significance tests for comparing encoders.

``import benchmarks`` is cheap: what a name needs is imported when the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "run_benchmark": "benchmarks.scoring.runner",
        "BenchConfig": "benchmarks.scoring.config",
        "read_results": "benchmarks.scoring.results",
        "Result": "benchmarks.scoring.results",
        "compare": "benchmarks.significance.compare",
        "CompareConfig": "benchmarks.significance.comparison",
    },
)
