"""``millpond bench``: every model is scored on every task; the scores are kept in a folder."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len

from cli.console import (
    clean,
    message,
    print_json,
    print_line,
    progress,
    stdout_width,
    truncate,
    warn,
    write_error,
)
from cli.models import say_once
from cli.options import (
    DeviceOption,
    InstructionOption,
    JsonOption,
    SkipBadOption,
    SpeedOption,
    TrustOption,
    option,
)
from embedder.environment import keep_freed_memory
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from benchmarks.scoring.results import Result
    from benchmarks.scoring.runner import Failure
    from benchmarks.tasks.instructions import Instructions

_PIPED_WIDTH = 80


def bench(
    model: Annotated[
        list[str],
        option(
            "MODEL",
            "As for 'millpond index', bm25, hybrid:MODEL, or MODEL>RERANKER; repeatable.",
            "--model",
            "-m",
        ),
    ],
    task: Annotated[
        list[str],
        option(
            "TASK",
            "beir:NAME, mteb:TASK, a BEIR folder, a .tsv file (score, sentence1, sentence2, "
            "or label, text), a folder with train.tsv and test.tsv, or a folder of such tasks; "
            "repeatable.",
            "--task",
            "-t",
        ),
    ],
    out: Annotated[Path, option("DIR", "The results folder.", "--out", "-o")],
    k: Annotated[int, option("K", "The cutoff of nDCG@K.", "-k", "--k")] = 10,
    split: Annotated[str, option("NAME", "Of a BEIR folder's qrels or a task of mteb.")] = "test",
    backend: Annotated[str, option("NAME", "What stores the vectors.")] = ("faiss"),
    factory: Annotated[str, option("TYPE", "A FAISS factory string: Flat is exact.")] = "Flat",
    instruction: InstructionOption = None,
    instructions: Annotated[
        str | None,
        option(
            "published|FILE",
            "An instruction for each task, from a TOML file or as e5-mistral's authors and "
            "mteb gave them.",
            "--instructions",
        ),
    ] = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    speed: SpeedOption = "exact",
    trust_remote_code: TrustOption = False,
    json: JsonOption = False,
) -> None:
    """Score models on retrieval, STS and more.

    Scores are kept and computed again only if the model, the data or the settings changed; a killed
    run continues where it stopped. With --json, one object per result: model, task, task_type,
    main_score, metrics, path.

    \b
    Examples:
      millpond bench --model bm25 --model smollm2-135m --task beir:scifact --out results
      millpond bench -m smollm2-135m:model1 -t my-beir-folder -t pairs.tsv -o results
      millpond bench -m my-model -t mteb:STS22.v2[en,de] -t "mteb:MTEB(eng, v2)" -o results
    """
    from benchmarks import BenchConfig, run_benchmark
    from benchmarks.scoring.instructed import label_model

    config = BenchConfig(
        models=model,
        tasks=task,
        out=out,
        k=k,
        split=split,
        backend=backend,
        factory=factory,
        skip_bad=skip_bad,
        device=device,
        speed=speed,
        trust_remote_code=trust_remote_code,
        instructions=_choose_instructions(instruction, instructions),
    )
    failures: list[Failure] = []
    keep_freed_memory()
    results = run_benchmark(
        config, notify=say_once(), progress=progress, on_failure=failures.append
    )
    for note in _notes(results):
        warn(note)
    if json:
        _print_json(out, results)
    elif results:
        _print_table([label_model(config, name) for name in model], results)
    _finish(out, results, failures)


def _choose_instructions(instruction: str | None, source: str | None) -> Instructions | None:
    """Return the instructions that were asked for, None for the models' own query prompts."""
    from benchmarks.tasks.instructions import Instructions, read_instructions

    if instruction is not None and source is not None:
        raise UsageError(
            "--instruction is for all tasks, --instructions for each; expected one of the two. "
            "Leave one out."
        )
    if instruction is not None:
        return Instructions.of_all(instruction)
    return None if source is None else read_instructions(source)


def _notes(results: Sequence[Result]) -> list[str]:
    """Return every note once per task, with the models if it concerns only some."""
    from benchmarks.scoring.results import group_notes

    scored = Counter(result.task for result in results)
    return [
        f"{task}: {note}" if len(names) == scored[task] else f"{', '.join(names)} on {task}: {note}"
        for (task, note), names in group_notes(results).items()
    ]


def _print_json(out: Path, results: Sequence[Result]) -> None:
    from benchmarks.scoring.results import result_path

    for result in results:
        data = result.to_json()
        kept = {key: data[key] for key in ("model", "task", "task_type", "main_score", "metrics")}
        print_json(kept | {"path": str(result_path(out, result.model, result.task))})


def _print_table(models: Sequence[str], results: Sequence[Result]) -> None:
    rows = list(dict.fromkeys((result.task, result.main_metric) for result in results))
    scores = {(result.model, result.task): result.main_score for result in results}
    for line in layout_scores(models, rows, scores, stdout_width() or _PIPED_WIDTH):
        print_line(line)


def _finish(out: Path, results: Sequence[Result], failures: Sequence[Failure]) -> None:
    """Print the next step, or the failures and exit with code 1."""
    if failures:
        count = "1 failure" if len(failures) == 1 else f"{len(failures)} failures"
        write_error(f"{count}; the scores of everything else are in {out}:")
        for failure in failures:
            message(f"  {failure}")
        raise typer.Exit(1)
    message(f"Next: millpond compare {shlex.quote(str(out))}")


_COLUMN = 8
_LONGEST_TASK = 36


def layout_scores(
    models: Sequence[str],
    tasks: Sequence[tuple[str, str]],
    scores: Mapping[tuple[str, str], float],
    width: int,
) -> Iterator[str]:
    """Yield the lines of a table, in blocks if there are more models than fit side by side.

    Parameters
    ----------
    tasks : name and main metric of each row.
    scores : model and task to score; NaN is shown as "undef.", a missing one as "-".
    width : cells in a line; names are cut to fit, scores never.
    """
    metric = max(cell_len(name) for _, name in tasks)
    room = max(12, min(_LONGEST_TASK, width - metric - 2 - _COLUMN))
    left = min(room, max(cell_len(clean(name)) for name, _ in tasks))
    each = max(1, (width - left - metric - 2) // _COLUMN)
    for start in range(0, len(models), each):
        numbers = range(start, min(start + each, len(models)))
        heads = "".join(f"{number + 1:>{_COLUMN}}" for number in numbers)
        yield f"{'task':<{left}}  {'metric':<{metric}}{heads}"
        for task, name in tasks:
            shown = truncate(clean(task), left)
            shown += " " * (left - cell_len(shown))
            row = "".join(
                f"{_format(scores.get((models[number], task))):>{_COLUMN}}" for number in numbers
            )
            yield f"{shown}  {name:<{metric}}{row}"
        yield ""
    for number, model in enumerate(models, start=1):
        yield truncate(f"{number:>2}  {clean(model)}", max(width, 24))


def _format(score: float | None) -> str:
    if score is None:
        return "-"
    return "undef." if math.isnan(score) else f"{score:.3f}"
