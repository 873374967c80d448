"""Does the paper hold? Every variant x seed trained alike, scored, compared and judged.

``import benchmarks.study`` is cheap: torch is imported when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.study.config import StudyConfig, load_study
    from benchmarks.study.example import example_study
    from benchmarks.study.markdown import write_study_report
    from benchmarks.study.plan import Plan, plan_study
    from benchmarks.study.runner import StudyOutcome, run_study
    from benchmarks.study.runs import list_runs

__all__ = [
    "Plan",
    "StudyConfig",
    "StudyOutcome",
    "example_study",
    "list_runs",
    "load_study",
    "plan_study",
    "run_study",
    "write_study_report",
]

_HOMES = {
    "Plan": "benchmarks.study.plan",
    "StudyConfig": "benchmarks.study.config",
    "StudyOutcome": "benchmarks.study.runner",
    "example_study": "benchmarks.study.example",
    "list_runs": "benchmarks.study.runs",
    "load_study": "benchmarks.study.config",
    "plan_study": "benchmarks.study.plan",
    "run_study": "benchmarks.study.runner",
    "write_study_report": "benchmarks.study.markdown",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchmarks.study' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
