"""``millpond train``: a config and pairs become a model folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.console import format_seconds, message, print_line, progress, warn
from cli.options import ConfigArgument, DeviceOption, SkipBadOption, flag, option
from embedder.environment import keep_freed_memory
from retrieval.errors import UsageError, count_noun

if TYPE_CHECKING:
    from embedder.training import StepReport, TrainConfig

_LINE_SECONDS = 5.0

ModelFolderOption = Annotated[
    Path | None, option("DIR", "The model folder.", "--out", "-o", shown=False)
]
ResumeOption = Annotated[bool, flag("--resume", "Continue the run in DIR, if there is one.")]
FinishOption = Annotated[
    bool, flag("--finish", "End the run in DIR now, with its last checkpoint.")
]


def train(
    config: ConfigArgument = None,
    out: ModelFolderOption = None,
    resume: ResumeOption = False,
    finish: FinishOption = False,
    check: Annotated[
        bool, flag("--check", "Only check the config, the base and every record of the data.")
    ] = False,
    example: Annotated[bool, flag("--example", "Only print a commented config that runs.")] = False,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
) -> None:
    """Train an embedding model on pairs of query and positive.

    All data is checked before training starts. --resume continues a killed run and reaches the same
    weights; Ctrl-C writes a checkpoint first. For several GPUs: torchrun --nproc-per-node N -m cli
    train ...

    \b
    Examples:
      millpond train --example > train.toml
      millpond train train.toml --check
      millpond train train.toml --out my-model
    """
    if example:
        from embedder.training import example_config

        print_line(example_config().rstrip("\n"))
        return
    if config is None:
        raise UsageError(
            "No config was given. Type: millpond train CONFIG --out DIR; 'millpond train "
            "--example' prints a config."
        )
    from embedder.training import load_config

    loaded = load_config(config)
    if check:
        check_config(loaded, skip_bad)
        return
    if out is None:
        raise UsageError(f"No model folder was given. Type: millpond train {config} --out DIR")
    run_training(loaded, out, resume=resume, finish=finish, skip_bad=skip_bad, device=device)


def check_config(config: TrainConfig, skip_bad: bool) -> None:
    """Read all data and report what it holds; look at the base, its weights apart."""
    from embedder.training import check_data
    from embedder.training.checks import check_model
    from embedder.training.evaluate import DevSets

    noun = _noun(config)
    with progress("Checking", None, f"{noun}s") as advance:
        data = check_data(config, progress=advance, skip_bad=skip_bad)
    devsets = DevSets(config.evaluate, skip_bad=skip_bad)
    check_model(config, message)
    for source in data.record():
        message(
            f"{source['path']}: {count_noun(source['pairs'], noun)}, "
            f"{count_noun(source['negatives'], 'negative')}, weight {source['weight']:g}"
        )
    for note in (*data.notes, *devsets.notes):
        warn(note)
    if data.held_out:
        message(f"{count_noun(len(data.held_out), 'text')} held out to compare with the teacher.")
    message(f"The config and all {data.pairs:,} {noun}s are good.")  # a batch alone has two


def _noun(config: TrainConfig) -> str:
    """Return what the data consists of: a teacher needs no pairs."""
    return "pair" if config.teacher is None or config.teacher.needs_pairs else "text"


def run_training(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    finish: bool,
    skip_bad: bool,
    device: str | None,
) -> None:
    """Train, showing how it goes, and say what to do with the model."""
    from embedder.training import train as run

    keep_freed_memory()
    started = time.monotonic()
    run(
        config,
        out,
        resume=resume,
        finish=finish,
        skip_bad=skip_bad,
        device=device,
        notify=message,
        progress=step_reporter(noun=f"{_noun(config)}s"),
    )
    message(f"Trained in {format_seconds(time.monotonic() - started)}: {out}")
    message(f"Next: millpond index python-stdlib --model {shlex.quote(str(out))} --out my-index")


def step_reporter(
    clock: Callable[[], float] = time.monotonic,
    show: Callable[[str], None] = message,
    noun: str = "pairs",
) -> Callable[[StepReport], None]:
    """Return a function that prints the first and the last step, and one every few seconds.

    Parameters
    ----------
    noun : what a step consists of.
    """
    shown = float("-inf")

    def report(step: StepReport) -> None:
        nonlocal shown
        if clock() - shown < _LINE_SECONDS and step.step < step.steps:
            return
        shown = clock()
        show(
            f"Step {step.step:,} of {step.steps:,}: loss {step.loss:.4f}, "
            f"{step.pairs_per_second:,.1f} {noun}/s, {step.tokens_per_second:,.0f} tokens/s, "
            f"{format_seconds(step.eta_seconds)} left"
        )

    return report
