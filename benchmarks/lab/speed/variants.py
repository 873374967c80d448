"""Encoding speed of every variant on one base, in one interleaved run.

    python -m benchmarks.lab.speed.variants ../shared/data/beir/scifact --documents 200
    python -m benchmarks.lab.speed.variants python-stdlib --variant mean+causal --variant model5

All variants of one attention share the weights that they compute with; ratios to ``mean+causal``
are taken within rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.lab.speed.interleaved import (
    Contestant,
    describe_machine,
    format_table,
    print_lines,
    say,
    take_turns,
)
from embedder import Embedder, list_variants
from embedder.variants import parse_model_name
from retrieval import read_corpus

AGAINST = "mean+causal"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table; return the exit code."""
    options = _parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return print_lines(lambda: compare(options))


def compare(options: argparse.Namespace) -> list[str]:
    """Return the lines of what is printed."""
    corpus = read_corpus(options.corpus, limit=options.documents)
    texts = [document.content for document in corpus]
    models = load_variants(options.base, options.options, options.variant)
    tokens = sum(map(len, models[AGAINST].tokenize(texts)))
    say(f"{len(texts)} texts, {tokens} tokens as {AGAINST}; {len(models)} variants")
    for model in models.values():
        model.encode_documents(texts[:8])
    timings = take_turns(
        [
            Contestant(name, partial(model.encode_documents, texts))
            for name, model in models.items()
        ],
        rounds=options.rounds,
        budget_seconds=options.seconds,
        notify=say,
    )
    return [
        f"{options.base}, {options.options}, {len(texts)} texts of {options.corpus}, {tokens} "
        f"tokens, {timings.rounds} interleaved rounds, {torch.get_num_threads()} threads; "
        f"{describe_machine()}",
        "",
        *format_table(timings, tokens, [AGAINST], {}),
    ]


def load_variants(base: str, options: str, wanted: Sequence[str]) -> dict[str, Embedder]:
    """Return untrained models by variant, one backbone an attention; ``mean+causal`` is the first.

    Parameters
    ----------
    options : of a model's name, such as "base_layers=12,max_tokens=128".
    wanted : names of variants; all of them where it is empty.
    """
    names = list(wanted) or [variant.name for variant in list_variants()]
    models: dict[str, Embedder] = {}
    for name in dict.fromkeys([AGAINST, *names]):
        spec = parse_model_name(f"{base}:{name}" + (f",{options}" if options else ""), AGAINST)
        same = (model for model in models.values() if model.spec.attention == spec.attention)
        first = next(same, None)
        if first is None:
            models[name] = Embedder.from_spec(spec, device="cpu", notify=say)
        else:
            models[name] = Embedder(spec, first.backbone)
    return models


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", help="as for millpond index, but for -")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--options", default="base_layers=12,max_tokens=128")
    parser.add_argument("--variant", action="append", default=[], help="all of them by default")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=480.0, help="of all rounds")
    parser.add_argument("--threads", type=int, help="torch's own choice by default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
