"""A whole build with a real model against encoding the same texts alone, in one interleaved run.

    python -m benchmarks.lab.speed.end_to_end corpus.jsonl --documents 2000
    python -m benchmarks.lab.speed.end_to_end python-stdlib --documents 200 --cpu-time

Both use one loaded model and take turns. The build is what ``millpond index`` does after loading:
it reads the corpus from disk, joins title and text, encodes, and writes an index folder. Encoding
alone has all texts in memory and gives their vectors back. Loading the model is in neither.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.lab.speed.interleaved import (
    Contestant,
    Timings,
    describe_machine,
    format_table,
    print_lines,
    ratios,
    say,
    spread,
    take_turns,
)
from embedder import Embedder
from embedder.environment import SPEEDS
from indexes import Index, IndexConfig
from retrieval import read_corpus
from retrieval.errors import UsageError

ALONE = "encoding alone"
BUILD = "Index.create"
_WARMING_DOCUMENTS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table; return the exit code."""
    config = _parse(arguments)
    return print_lines(lambda: compare(config))


def compare(config: argparse.Namespace) -> list[str]:
    """Measure, and return the machine, a table in Markdown, and their ratio.

    Raises
    ------
    UsageError : fewer than one document or round.
    """
    import torch

    for name, value in (("documents", config.documents), ("rounds", config.rounds)):
        if value < 1:
            raise UsageError(f"--{name} is {value}; it must be 1 or more.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    texts = [document.content for document in read_corpus(config.corpus, limit=config.documents)]
    model = Embedder.load(config.model, device="cpu", speed=config.speed, notify=say)
    tokens = sum(map(len, model.tokenize(texts, model.spec.document_prompt)))
    say(f"{len(texts)} documents, {tokens} tokens")
    with tempfile.TemporaryDirectory(prefix="millpond-end-", dir=config.folder) as place:
        timings = measure(model, texts, config, Path(place))
    clock = "CPU" if config.cpu_time else "wall"
    return [
        f"{model.name}, speed {config.speed}, {len(texts)} documents of {config.corpus}, {tokens} "
        f"tokens, {timings.rounds} interleaved rounds in {clock} time, {torch.get_num_threads()} "
        f"threads; {describe_machine()}",
        "",
        *format_table(timings, tokens, [ALONE], {}),
        "",
        describe_share(timings),
    ]


def measure(
    model: Embedder, texts: Sequence[str], config: argparse.Namespace, place: Path
) -> Timings:
    """Return the seconds of each round; every build stays in a folder of its own below ``place``.

    ``texts`` are those of the documents that the build reads.
    """
    numbers = count()

    def build(documents: int) -> None:
        Index.create(
            place / f"build{next(numbers)}",
            model,
            read_corpus(config.corpus, limit=documents),
            IndexConfig(corpus_name=config.corpus, reading={"limit": documents}),
        )

    build(min(_WARMING_DOCUMENTS, len(texts)))  # what is imported and allocated once
    model.encode_documents(texts[:_WARMING_DOCUMENTS])
    return take_turns(
        [
            Contestant(ALONE, partial(model.encode_documents, texts)),
            Contestant(BUILD, partial(build, config.documents)),
        ],
        rounds=config.rounds,
        budget_seconds=config.seconds,
        notify=say,
        clock=time.process_time if config.cpu_time else time.perf_counter,
    )


def describe_share(timings: Timings) -> str:
    """Return one line: how many times as long a build takes."""
    longer = spread(ratios(timings, ALONE, BUILD), 3)
    return f"{BUILD} takes {longer} of the time of {ALONE}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", help="as for millpond index, but for -")
    parser.add_argument("--model", default="millpond-135m")
    parser.add_argument("--documents", type=int, default=2000, help="the first of the corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=480.0, help="of all rounds")
    parser.add_argument("--threads", type=int, help="torch's own choice by default")
    parser.add_argument("--speed", choices=SPEEDS, default="exact")
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine; --threads 1")
    parser.add_argument("--folder", type=Path, help="where to write; default: TMPDIR")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
