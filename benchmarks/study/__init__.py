"""Does the paper hold? Every variant x seed trained alike, scored, compared and judged."""

from benchmarks.study.config import StudyConfig, example_study, load_study
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
