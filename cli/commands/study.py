"""``millpond study``: every variant is trained with several seeds, scored and compared."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.train import step_reporter
from cli.console import (
    clean,
    format_seconds,
    format_size,
    message,
    print_line,
    progress,
    stdout_width,
    truncate,
    warn,
    wrap,
    write_error,
)
from cli.options import ConfigArgument, DeviceOption, flag, option
from embedder.environment import keep_freed_memory
from retrieval.errors import UsageError, count_noun

if TYPE_CHECKING:
    from benchmarks.study.config import StudyConfig
    from benchmarks.study.plan import Plan

_WIDTH = 80
_EXAMPLE = "paper-mistral-7b.toml"


def study(
    config: ConfigArgument = None,
    out: Annotated[
        Path | None, option("STUDY", "The study folder.", "--out", "-o", shown=False)
    ] = None,
    dry_run: Annotated[
        bool, flag("--dry-run", "Only print what there is to do and what it takes.")
    ] = False,
    calibrate: Annotated[
        bool,
        flag(
            "--calibrate/--no-calibrate",
            "With --dry-run: train a few steps on each base to know the times.",
        ),
    ] = True,
    example: Annotated[
        bool, flag("--example", "Only print the paper's own setting as a config.")
    ] = False,
    device: DeviceOption = None,
) -> None:
    """Train, score and compare every variant with several seeds.

    All share the order of the data and the budget. Finished runs are kept: after a kill the same
    command continues, and it tries failed runs again. STUDY then holds report.html, report.md and
    summary.json: tables, a verdict for each of the paper's claims, layers, costs.

    \b
    Examples:
      millpond study --example > study.toml
      millpond study study.toml --out my-study --dry-run
      millpond study study.toml --out my-study
    """
    if example:
        print_line((files("benchmarks") / "studies" / _EXAMPLE).read_text("utf-8").rstrip("\n"))
        return
    if config is None:
        raise UsageError(
            "No config was given. Type: millpond study CONFIG --out STUDY; 'millpond study "
            "--example' prints a config."
        )
    from benchmarks.study.config import load_study

    loaded = load_study(config)
    for caution in loaded.cautions:
        warn(caution)
    if dry_run:
        _plan(loaded, out, calibrate, device)
        return
    if out is None:
        raise UsageError(f"No folder was given. Type: millpond study {config} --out STUDY")
    _run(loaded, out, device)


def _plan(config: StudyConfig, out: Path | None, calibrate: bool, device: str | None) -> None:
    from benchmarks.study.plan import plan_study

    plan = plan_study(config, out, calibrate=calibrate, device=device, notify=message)
    for line in _layout(plan):
        print_line(line)


def _layout(plan: Plan) -> list[str]:
    """Return the plan as a table that fits 80 columns, with totals and notes."""
    heads = ("base", "variant", "runs", "train tok.", "score tok.", "time")
    body = [
        (
            truncate(clean(row.base), 14),
            truncate(clean(row.variant), 24),
            f"{row.runs:,}",
            _tokens(row.train_tokens),
            _tokens(row.score_tokens),
            _time(row.seconds),
        )
        for row in plan.rows
    ]
    total = (
        "all",
        "",
        f"{sum(row.runs for row in plan.rows):,}",
        _tokens(sum(row.train_tokens for row in plan.rows)),
        _tokens(sum(row.score_tokens for row in plan.rows)),
        _time(plan.seconds),
    )
    widths = [max(map(len, column)) for column in zip(heads, *body, total, strict=True)]
    lines = [_row(cells, widths) for cells in (heads, *body, total)]
    disk = format_size(plan.disk_bytes) if plan.calibrated else "not known"
    basis = (
        "Times and bytes are those of one real run of each base, with a pooling that has weights."
        if plan.calibrated
        else "Tokens are guessed at four characters each; nothing was run, so times are not known."
    )
    notes = (
        f"{count_noun(plan.done, 'run is', 'runs are')} done. Each run embeds "
        f"{count_noun(plan.texts, 'text')} to be scored. Disk at most: {disk}. {basis}"
    )
    return [*lines, "", *wrap(notes, min(_WIDTH, stdout_width() or _WIDTH), 9)]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return two names to the left and numbers to the right."""
    padded = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _tokens(count: int) -> str:
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f}{unit}"
    return str(count)


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds / 3600:.1f} h" if seconds >= 2 * 3600 else format_seconds(seconds)


def _run(config: StudyConfig, out: Path, device: str | None) -> None:
    from benchmarks.study.markdown import write_study_report
    from benchmarks.study.runner import run_study

    keep_freed_memory()
    outcome = run_study(
        config, out, device=device, notify=message, progress=progress, on_step=step_reporter()
    )
    if outcome.done:
        summary = write_study_report(config, out)
        for base in summary["bases"]:
            _print_verdicts(base)
        message(f"Wrote {shlex.quote(str(out / 'report.html'))}, report.md and summary.json")
    if outcome.failed:
        them = "it" if len(outcome.failed) == 1 else "them"
        runs = count_noun(len(outcome.failed), "run")
        write_error(f"{runs} failed; the same command tries {them} again:")
        for name, error in outcome.failed.items():
            message(f"  {name}: {error}")
        raise typer.Exit(1)


def _print_verdicts(base: dict[str, Any]) -> None:
    print_line(clean(base["name"]))
    for claim in base["claims"]:
        words = [one["word"] for one in claim["judgements"]]
        counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        text = f"{claim['number']}. {claim['word']} ({counts}): {claim['text']}"
        for number, line in enumerate(wrap(clean(text), _WIDTH - 5, 9)):
            print_line(f"{'     ' if number else '  '}{line}")
