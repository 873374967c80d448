"""A LoRA training step packed and padded, with three dropouts, in one interleaved run.

    python -m benchmarks.lab.speed.training python-stdlib --base-layers 6

A step is what ``millpond train`` does in one: 64 titles and the texts below them through model1 in
passes of 2,048 tokens, InfoNCE, gradients. The weights stay as they are. All texts are packed but
where the table says padded, which is with millpond's dropout. Runs on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.lab.speed.interleaved import (
    Contestant,
    describe_machine,
    format_table,
    print_lines,
    say,
    take_turns,
)
from embedder import Embedder
from embedder.models.lora import LoraOptions, WordDropout, add_adapter
from embedder.training.batch import (
    LocalBatch,
    SourceTokenizer,
    StepPairs,
)
from embedder.training.config import DataSource, LossConfig
from embedder.training.data import KnownPairs, Pair
from embedder.training.loss import BatchLoss, plain_backward
from embedder.training.processes import Processes
from embedder.variants import parse_model_name
from retrieval import read_corpus

NO_DROPOUT = "no dropout"
TORCH = "torch's dropout"
WORDS = "millpond's dropout"
PADDED = "padded"
_RATE = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table; return the exit code."""
    options = _parse(arguments)
    return print_lines(lambda: compare(options))


def compare(options: argparse.Namespace) -> list[str]:
    """Measure, and return the machine and a table in Markdown."""
    spec = parse_model_name(options.model, "eos+causal")
    model = Embedder.from_spec(spec, device="cpu", notify=say)
    model.backbone.requires_grad_(False)
    add_adapter(model.backbone, LoraOptions(dropout=_RATE))
    model.train()
    batches = {}
    for packs in (False, True):
        model.packs = packs
        batches[packs] = _batch(model, options)
    local = batches[True][0]

    def run(dropout: nn.Module, packs: bool = True) -> None:
        for name, module in list(model.backbone.named_modules()):
            if name.endswith(".lora_dropout"):
                module["default"] = dropout
        model.zero_grad(set_to_none=True)
        step, loss = batches[packs]
        plain_backward(model.embed, step.chunks, loss)

    contestants = [
        Contestant(NO_DROPOUT, partial(run, nn.Identity())),
        Contestant(TORCH, partial(run, nn.Dropout(_RATE))),
        Contestant(PADDED, partial(run, WordDropout(_RATE), packs=False)),
        Contestant(WORDS, partial(run, WordDropout(_RATE))),
    ]
    contestants[-1].run()
    timings = take_turns(
        contestants, rounds=options.rounds, budget_seconds=options.seconds, notify=say
    )
    return [
        f"{options.model}, LoRA on all linear layers, {len(local.order) // 2} pairs of "
        f"{options.corpus}, {local.tokens} tokens in passes of {options.forward_tokens}, "
        f"{timings.rounds} interleaved rounds, {torch.get_num_threads()} threads; "
        f"{describe_machine()}",
        "",
        *format_table(timings, local.tokens, [TORCH, PADDED], {}),
    ]


def _batch(model: Embedder, options: argparse.Namespace) -> tuple[LocalBatch, BatchLoss]:
    """Return the passes of one step and the loss over them, as ``millpond train`` makes them."""
    documents = list(read_corpus(options.corpus, limit=options.pairs))
    pairs = tuple(Pair(found.title or found.doc_id, found.text) for found in documents)
    alone = Processes(torch.device("cpu"))
    step = StepPairs((0,) * len(pairs), pairs)
    tokenizer = SourceTokenizer(model, [DataSource(path=Path(options.corpus))])
    local = tokenizer.local_batch(step, alone, options.forward_tokens)
    return local, BatchLoss(step, local, LossConfig(), alone, KnownPairs.of(step.pairs))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("corpus", help="as for millpond index, but for -")
    parser.add_argument("--model", default="smollm2-135m:model1,base_layers=6,max_tokens=48")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--forward-tokens", type=int, default=2048, help="of one pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=240.0, help="of all rounds")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
