"""Results and their significance as an HTML page, as Markdown and as CSV."""

from benchmarks.report.collect import Report, collect
from benchmarks.report.markdown import render_csv, render_markdown
from benchmarks.report.page import render_page

__all__ = ["Report", "collect", "render_csv", "render_markdown", "render_page"]
