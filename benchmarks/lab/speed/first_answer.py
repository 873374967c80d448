"""Seconds to the first answer: ``millpond search`` from the command line, and a baseline.

    python -m benchmarks.lab.speed.first_answer demo-index
    python -m benchmarks.lab.speed.first_answer demo-index --baseline ALL_MINILM_FOLDER

Each contestant is a new process, so imports and the loading of the model are in its time. They
take turns within a round; ratios are taken within rounds. The baseline embeds one text with
sentence-transformers and searches nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.lab.speed.interleaved import (
    Contestant,
    Timings,
    describe_machine,
    ratios,
    say,
    spread,
    take_turns,
)
from benchmarks.report.markdown import table_lines

QUESTION = "delete a folder and everything in it"
LIGHT = "millpond search"
WHOLE = "millpond search, by torch and transformers"
BASELINE = "sentence-transformers, one vector, no search"

_WHOLE = """
import sys, embedder.light
embedder.light.load_light_encoder = lambda model, **how: None
from cli.app import app
app(sys.argv[1:])
"""
_BASELINE = """
import sys
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
print(model.encode([sys.argv[2]]).shape)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table; return the exit code."""
    options = _parse(arguments)
    python = [sys.executable]
    search = ["search", str(options.index), options.question, "-k", "3"]
    commands = {LIGHT: [*python, "-m", "cli", *search], WHOLE: [*python, "-c", _WHOLE, *search]}
    if options.baseline is not None:
        commands[BASELINE] = [*python, "-c", _BASELINE, str(options.baseline), options.question]
    for name, command in commands.items():  # files come into the system's cache
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"error: {name} failed: {done.stderr.strip()[-2000:]}")
            return 1
    timings = take_turns(
        [
            Contestant(name, partial(subprocess.run, command, capture_output=True, check=True))
            for name, command in commands.items()
        ],
        rounds=options.rounds,
        budget_seconds=options.seconds,
        notify=say,
    )
    print(f"{options.index}, {timings.rounds} interleaved rounds; {describe_machine()}\n")
    print("\n".join(_table(timings)))
    return 0


def _table(timings: Timings) -> list[str]:
    """Return the lines of a table in Markdown: medians, with the lowest and highest round."""
    rows = [
        [name, spread(seconds, 1), spread(ratios(timings, name, WHOLE))]
        for name, seconds in timings.seconds.items()
    ]
    return list(table_lines(["contestant", "seconds", f"x {WHOLE}"], rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("index", type=Path, help="an index that millpond-135m made")
    parser.add_argument("--baseline", type=Path, help="a folder that SentenceTransformer loads")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=240.0, help="of all rounds")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
