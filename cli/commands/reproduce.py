"""``millpond reproduce``: a recorded score, computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.console import clean, message, print_json, print_line, progress
from cli.options import DeviceOption, JsonOption, argument, option


def reproduce(
    score: Annotated[Path, argument("SCORE.json", "A result of bench, or an imported one.")],
    model: Annotated[
        str | None, option("MODEL", "What loads the model now.", "--model", "-m", shown="as then")
    ] = None,
    task: Annotated[
        str | None, option("TASK", "Where the data are now.", "--task", "-t", shown="as then")
    ] = None,
    tolerance: Annotated[float, option("D", "A larger gap exits with 1.")] = 0.0001,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Run a recorded score again and say what differs.

    Prints the gap, and what the two records show to be different: the model's prompts and longest
    input, settings, data, versions, truncated documents, queries that find themselves, and how far
    the order of equal scores alone can move the score.

    \b
    Examples:
      millpond reproduce results/bm25/scifact.json
      millpond reproduce imported/intfloat_e5-small-1a2b3c4d/SciFact.json --task beir:scifact
    """
    from benchmarks.exchange.reproduce import reproduce as run

    found = run(score, model=model, task=task, device=device, notify=message, progress=progress)
    if json:
        print_json(
            {
                "model": found.before.model,
                "task": found.before.task,
                "metric": found.metric,
                "recorded": found.recorded,
                "now": found.now,
                "gap": found.gap,
                "changed_items": found.changed_items,
                "differences": list(found.differences),
            }
        )
    else:
        print_line(f"{clean(found.before.model)} on {clean(found.before.task)}: {found.metric}")
        print_line(f"  recorded  {found.recorded:.4f}")
        print_line(f"  now       {found.now:.4f}")
        print_line(f"  gap      {found.gap:+.4f}")
        if found.changed_items is not None:
            total = len(found.before.item_ids)
            print_line(f"  {found.changed_items:,} of {total:,} items have another score")
        if found.differences:
            print_line("What differs, or is not known:")
        for line in found.differences:
            print_line(f"- {clean(line)}")
    if not abs(found.gap) <= tolerance:
        message(f"The gap is above the tolerance of {tolerance:g}.")
        raise typer.Exit(1)
