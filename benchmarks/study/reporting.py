"""Writes a study's report: what it found as JSON, as a page, and as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.study.config import StudyConfig
from benchmarks.study.folder import StudyFolder
from benchmarks.study.markdown import render_study_markdown
from benchmarks.study.page import render_study_page
from benchmarks.study.summary import summarise
from indexes.manifest import millpond_version, now_utc

__all__ = ["write_study_report"]


def write_study_report(config: StudyConfig, out: str | Path) -> dict[str, Any]:
    """Write summary.json, report.html and report.md into the study, and return the summary.

    Raises
    ------
    UsageError : no cell is done.
    FailureError, RecordError, StorageError : a file of the study is damaged or not writable.
    """
    folder = StudyFolder(Path(out))
    summary = summarise(config, folder, millpond_version(), now_utc())
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    folder.write_text("summary.json", f"{text}\n")
    folder.write_text("report.html", render_study_page(summary))
    folder.write_text("report.md", render_study_markdown(summary))
    return summary
