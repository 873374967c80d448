"""``millpond report``: results and their significance as HTML, Markdown or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli.console import format_size, message, progress, warn
from cli.options import ResultsArgument, option
from cli.output import atomic_output, check_output, read_version
from retrieval.errors import UsageError, count_noun

if TYPE_CHECKING:
    from benchmarks.scoring.results import Result
    from benchmarks.significance.comparison import Comparison

DEFAULT_ALPHA = 0.05
DEFAULT_TEST = "randomisation"
DEFAULT_CORRECTION = "holm"
FORMATS = (".html", ".md", ".csv")


def report(
    results: ResultsArgument,
    out: Annotated[Path, option("FILE", "report.html, report.md or report.csv.", "--out", "-o")],
    alpha: Annotated[
        float | None,
        option(
            "P",
            "A difference is significant below this corrected p.",
            "--alpha",
            shown=str(DEFAULT_ALPHA),
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        option("MODEL", "Compare every model with this one only.", "--baseline", shown="all pairs"),
    ] = None,
    metric: Annotated[
        str | None,
        option(
            "NAME", "Compare by this metric, such as ndcg@10.", "--metric", shown="each task's own"
        ),
    ] = None,
    test: Annotated[
        str | None, option("NAME", "randomisation, wilcoxon or t.", "--test", shown=DEFAULT_TEST)
    ] = None,
    correction: Annotated[
        str | None,
        option("NAME", "holm or benjamini-hochberg.", "--correction", shown=DEFAULT_CORRECTION),
    ] = None,
) -> None:
    """Write benchmark results as an HTML page, Markdown or CSV.

    The .html file is one page that works offline: leaderboards with significance letters, all
    pairs of models, two models item by item, cost against quality. The .md file has the
    leaderboards and the significant differences, the .csv file one line per model, task and metric.

    \b
    Examples:
      millpond report results --out report.html
      millpond report results --out report.md --baseline bm25
    """
    from benchmarks.scoring.results import read_results

    kind = out.suffix.lower()
    if kind not in FORMATS:
        ending = f"ends in {out.suffix!r}" if out.suffix else "has no ending"
        raise UsageError(
            f"--out is {str(out)!r}, which {ending}; expected {', '.join(FORMATS)}. "
            f"Type: millpond report RESULTS --out {out.stem or 'report'}.html"
        )
    choices: dict[str, Any] = {"alpha": alpha, "baseline": baseline, "metric": metric}
    choices |= {"test": test, "correction": correction}
    given = {name: value for name, value in choices.items() if value is not None}
    if kind == ".csv" and given:
        names = ", ".join(f"--{name}" for name in given)
        raise UsageError(
            f"{names} {'goes' if len(given) == 1 else 'go'} with .html and .md; a .csv report has "
            f"every metric and no tests. Leave it out, or name another ending with --out."
        )
    check_output(out)
    found = read_results(results)
    text = _render(kind, results, found, given).encode()
    with atomic_output(out) as path:
        path.write_bytes(text)
    models, tasks = len({one.model for one in found}), len({one.task for one in found})
    message(
        f"Wrote {out} ({format_size(len(text))}): {count_noun(models, 'model')}, "
        f"{count_noun(tasks, 'task')}, {count_noun(len(found), 'result')}"
    )


def _render(kind: str, folder: Path, results: list[Result], given: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    from benchmarks.report import collect, render_csv, render_markdown, render_page

    if kind == ".csv":
        return render_csv(results)
    comparison = _compare(results, given)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    made = collect(folder, results, comparison, read_version(), created)
    return render_markdown(made) if kind == ".md" else render_page(made)


def _compare(results: list[Result], given: dict[str, Any]) -> Comparison:
    """Return the comparison; of a single model an empty one, with a note."""
    from benchmarks.significance.compare import compare, compare_nothing
    from benchmarks.significance.comparison import CompareConfig

    config = CompareConfig(**given)
    if len({one.model for one in results}) == 1 and not given.keys() & {"baseline", "metric"}:
        warn("One model has results, so there is no difference to test.")
        return compare_nothing(results, config)
    with progress("Comparing", None, "pairs") as advance:
        return compare(results, config, progress=advance)
