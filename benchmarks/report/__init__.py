"""Results and their significance as a page to put before others, as Markdown and as CSV."""

from benchmarks.report.collect import Report, collect
from benchmarks.report.markdown import render_markdown
from benchmarks.report.page import render_page
from benchmarks.report.single import compare_nothing
from benchmarks.report.table import render_csv

__all__ = ["Report", "collect", "compare_nothing", "render_csv", "render_markdown", "render_page"]
