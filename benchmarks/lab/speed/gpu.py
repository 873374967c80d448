"""All comparisons on a GPU in one command: tokens per second and MFU, against other libraries.

    python -m benchmarks.lab.speed.gpu --out gpu.json
    python -m benchmarks.lab.speed.gpu --out gpu.json --quick     # tiny shapes: does it run at all?

Random Llamas of the sizes of smollm2-135m, 0.5B and 7B, in bfloat16, mean+causal. MFU is the
operations of the layers (2 per weight and token, and attention's under a causal mask) over the
card's own peak at bfloat16 matrix products, measured first. "Naive" is transformers with the same
weights, batches of 64 in input order, all hidden states kept. Contestants take turns, and ratios
are taken within rounds. What would not fit in ``--seconds`` is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lab.speed import gpu_models as models
from benchmarks.lab.speed.baselines import load_sentence_transformer, write_plain_base
from benchmarks.lab.speed.interleaved import (
    Contestant,
    Timings,
    format_table,
    ratios,
    say,
    spread,
    take_turns,
)
from benchmarks.optional import read_versions
from embedder import Embedder
from embedder.engine.batches import CUDA_TOKENS, budget_of, is_out_of_memory
from embedder.environment import choose_device
from retrieval.errors import MillpondError
from retrieval.protocols import silent

OURS, PADDED, NAIVE = "millpond", "millpond padded", "naive, batches of 64"
_ORDER = ("smollm2-135m", "llama-7b", "llama-0.5b")
_LENGTHS: tuple[int | str, ...] = (512, "mixed", 32, 128, 2048, 64, 256, 1024)
_ROUNDS = 3
_FEW_TEXTS = 64
_TINY_TURN_SECONDS = 0.05
_SORTED_TEXTS = 2048
"""sentence-transformers sorts texts by length, which would help little with few of them."""

Row = dict[str, Any]
"""One shape at one length, as the JSON file has it: ``seconds`` has one entry a round."""


class Run:
    """One run of the command: where it runs, until when, and what it has found so far.

    Attributes
    ----------
    results : what the JSON file holds, which is written after each part.
    against : title to timings and tokens of the comparisons with sentence-transformers.
    """

    def __init__(self, out: Path, seconds: float, quick: bool, device: torch.device) -> None:
        self._out, self.seconds, self.device = out, seconds, device
        self.is_tiny = quick or device.type != "cuda"
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.turn_seconds = _TINY_TURN_SECONDS if self.is_tiny else 1.0
        self.longest = 64 if self.is_tiny else models.LONGEST_TOKENS
        self.began = time.perf_counter()
        self.has_failed = False
        self.against: dict[str, tuple[Timings, int]] = {}
        self.peak = models.matmul_peak(
            device, self.dtype, (256,) if self.is_tiny else (8192, 16_384)
        )
        self.results: dict[str, Any] = {
            "machine": _describe(device),
            "matmul_peak_tflops": self.peak / 1e12,
            "packing": {},
            "lengths": [],
            "texts": {},
            "skipped": [],
        }

    @property
    def seconds_left(self) -> float:
        """Seconds until the time asked for is over."""
        return self.seconds - (time.perf_counter() - self.began)

    def attempt(self, name: str, share: float, part: Callable[[], None]) -> None:
        """Do a part that takes about this share of the time; skip it if too little is left."""
        seconds = share * self.seconds
        if self.seconds_left < seconds:
            self.skip(f"{name}: {self.seconds_left:.0f} s are left, about {seconds:.0f} are needed")
            return
        try:
            part()
        except MillpondError as error:
            self.skip(f"{name}: {error}")
        except Exception as error:  # the other parts are worth having all the same
            if not is_out_of_memory(error):
                traceback.print_exc()
                self.has_failed = True
            self.skip(f"{name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        self.save()

    def skip(self, line: str) -> None:
        """Note what was left out."""
        say(f"left out: {line}")
        self.results["skipped"].append(line)

    def save(self) -> None:
        """Write what was measured so far, so that a stopped run leaves it behind."""
        self._out.write_text(json.dumps(self.results, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all comparisons, write the JSON and print the tables; return the exit code."""
    asked = _parse(arguments)
    try:
        device = choose_device(asked.device)
    except MillpondError as error:
        say(f"error: {error}")
        return 1
    run = Run(asked.out, asked.seconds, asked.quick, device)
    run.save()
    for name in asked.shapes:
        shape = (models.TINY if run.is_tiny else models.SHAPES)[name]
        run.attempt(name, 0.01, partial(measure_shape, run, shape))
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    run.results["machine"]["seconds"] = round(time.perf_counter() - run.began)
    run.save()
    print(to_markdown(run.results, run.against))
    return 1 if run.has_failed else 0


def measure_shape(run: Run, shape: models.Shape) -> None:
    """Measure a shape at all lengths; the smallest one against sentence-transformers too."""
    say(f"{shape.name}: {shape.layer_parameters / 1e6:.0f}M weights in its layers")
    embedder = models.build_embedder(shape, run.device, run.dtype)
    packing = embedder.backbone.packing
    kernel = packing.kernel.name if packing.longest else "padded"
    run.results["packing"][shape.name] = kernel
    tokens = models.settle_budget(embedder, run.longest, 0.04 * run.seconds)
    say(f"{shape.name}: {kernel}, {tokens} tokens per batch")
    if shape.name == "smollm2-135m":
        name = f"{shape.name} against sentence-transformers"
        run.attempt(name, 0.1, partial(measure_texts, run, embedder))
    for length in _LENGTHS:
        if length == "mixed" or int(length) <= run.longest:
            part = partial(measure_length, run, shape, embedder, length)
            run.attempt(f"{shape.name} at {length}", 0.03, part)


def measure_length(run: Run, shape: models.Shape, embedder: Embedder, length: int | str) -> None:
    """Time ours, ours padded and naive on texts of one length, or of mixed ones."""
    lengths = _choose_lengths(run, embedder, length)
    rows = models.random_rows(lengths, embedder)
    budget = budget_of(embedder).tokens
    encoders: dict[str, Callable[[Any], Any]] = {OURS: embedder.encode_tokens}
    if length == "mixed":  # of one length, none is padded
        fixed = budget - (budget == CUDA_TOKENS)  # that number would be grown again
        padded = Embedder(embedder.spec, embedder.backbone, batch_tokens=fixed)
        padded.packs = False
        encoders[PADDED] = padded.encode_tokens
    encoders[NAIVE] = partial(models.encode_naively, embedder)
    contestants = []
    for name, encode in encoders.items():
        try:
            few = encode(rows[:_FEW_TEXTS])  # warms up
            part = rows if name != NAIVE else _cut_to_turn(run, encode, rows, _FEW_TEXTS)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            run.skip(f"{shape.name} at {length}, {name}: out of memory")
            continue
        share = sum(map(len, part)) / sum(lengths)
        contestants.append(Contestant(name, partial(encode, part), share))
    cosine = float("nan")
    if contestants[-1].name == NAIVE:
        cosine = float((embedder.encode_tokens(rows[:_FEW_TEXTS]) * few).sum(axis=1).min())
    timings = take_turns(
        contestants, rounds=_ROUNDS, budget_seconds=min(15, run.seconds_left), notify=silent
    )
    row = describe_length(timings, sum(lengths), shape.flops(lengths), run.peak)
    about = {"shape": shape.name, "length": str(length), "texts": len(lengths)}
    row |= about | {"batch_tokens": budget, "lowest_cosine": cosine}
    run.results["lengths"].append(row)
    rate, mfu = row["tokens_per_second"][OURS], row["mfu"][OURS]
    say(f"{shape.name} at {length}: {rate:.0f} tokens/s, MFU {mfu:.1%}")


def describe_length(timings: Timings, tokens: int, flops: float, peak: float) -> Row:
    """Return rates, medians of all rounds, and the share of the card's peak that each reaches."""
    rates = {name: tokens / statistics.median(found) for name, found in timings.seconds.items()}
    return {
        "tokens": tokens,
        "flops": flops,
        "seconds": timings.seconds,
        "tokens_per_second": rates,
        "mfu": {name: rate * flops / tokens / peak for name, rate in rates.items()},
    }


def measure_texts(run: Run, embedder: Embedder) -> None:
    """Time whole encoding of mixed texts, tokenising included, against sentence-transformers."""
    lengths = _choose_lengths(run, embedder, "mixed")
    texts = models.make_texts(lengths, len(embedder.backbone.tokenizer))
    with tempfile.TemporaryDirectory(prefix="millpond-speed-") as folder:
        write_plain_base(embedder, Path(folder))
        baseline = load_sentence_transformer(Path(folder), run.longest, str(run.device), run.dtype)
    encoders: dict[str, Callable[[Any], Any]] = {OURS: embedder.encode_documents}
    for size in (32, 128):
        name = f"sentence-transformers, batches of {size}"
        encoders[name] = partial(baseline.encode, batch_size=size, show_progress_bar=False)
    contestants = []
    for name, encode in encoders.items():
        encode(texts[:_FEW_TEXTS])
        part = texts if name == OURS else _cut_to_turn(run, encode, texts, _SORTED_TEXTS)
        share = sum(lengths[: len(part)]) / sum(lengths)
        contestants.append(Contestant(name, partial(encode, part), share))
    sample = texts[:_FEW_TEXTS]
    cosine = (embedder.encode_documents(sample) * np.asarray(baseline.encode(sample))).sum(axis=1)
    run.results["machine"]["lowest cosine to sentence-transformers"] = f"{cosine.min():.5f}"
    timings = take_turns(
        contestants, rounds=_ROUNDS, budget_seconds=min(60, run.seconds_left), notify=say
    )
    title = "smollm2-135m, mixed texts"
    run.against[title] = (timings, sum(lengths))
    run.results["texts"][title] = {"tokens": sum(lengths), "seconds": timings.seconds}


def _choose_lengths(run: Run, embedder: Embedder, length: int | str) -> list[int]:
    """Return as many lengths as ours embeds in the time of one turn; two batches at least."""
    sized = run.longest if length == "mixed" else int(length)
    least = 2 * budget_of(embedder).tokens
    rows = models.random_rows([sized] * max(1, least // sized), embedder)
    began = time.perf_counter()
    embedder.encode_tokens(rows)
    tokens = round(least * max(1.0, run.turn_seconds / (time.perf_counter() - began)))
    if length == "mixed":
        return models.mixed_lengths(tokens, run.longest)
    return [sized] * max(1, tokens // sized)


def _cut_to_turn(
    run: Run, encode: Callable[[Any], object], texts: Sequence[Any], least: int
) -> Sequence[Any]:
    """Return the texts that a baseline embeds in one turn, in whole batches; all at most."""
    few = texts[:_FEW_TEXTS]
    began = time.perf_counter()
    encode(few)
    seconds = time.perf_counter() - began
    wanted = max(least, round(len(few) * run.turn_seconds / seconds))
    return texts[: -(-wanted // _FEW_TEXTS) * _FEW_TEXTS]


def to_markdown(results: dict[str, Any], against: dict[str, tuple[Timings, int]]) -> str:
    """Return the tables, and what was left out."""
    about = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    peak = f"Matrix-product peak, measured: {results['matmul_peak_tflops']:.4g} TFLOP/s"
    lines = [about, "", peak]
    titles = ["length", "tokens/s", "MFU", f"x {PADDED}", f"x {NAIVE}", "naive MFU"]
    titles += ["tokens per batch", "lowest cosine"]
    for shape in dict.fromkeys(row["shape"] for row in results["lengths"]):
        own = [row for row in results["lengths"] if row["shape"] == shape]
        own.sort(key=lambda row: (len(row["length"]), row["length"]))  # "mixed" is the longest
        lines += ["", f"**{shape}** (attention: {results['packing'].get(shape, '-')})", ""]
        table = [titles, ["---"] * len(titles), *map(_cells, own)]
        lines += ["| " + " | ".join(row) + " |" for row in table]
    for name, (timings, tokens) in against.items():
        others = [other for other in timings.seconds if other != OURS]
        lines += ["", f"**{name}** ({tokens} tokens, tokenising included)", ""]
        lines += format_table(timings, tokens, others, {})
    if results["skipped"]:
        lines += ["", "Left out:", "", *(f"- {line}" for line in results["skipped"])]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    timings = Timings(row["seconds"])
    padded, naive = (
        spread(ratios(timings, OURS, other)) if other in row["seconds"] else "-"
        for other in (PADDED, NAIVE)
    )
    return [
        row["length"],
        f"{row['tokens_per_second'][OURS]:,.0f}",
        f"{row['mfu'][OURS]:.1%}",
        padded,
        naive,
        f"{row['mfu'].get(NAIVE, 0.0):.1%}",
        f"{row['batch_tokens']:,}",
        f"{row['lowest_cosine']:.5f}",
    ]


def _describe(device: torch.device) -> dict[str, Any]:
    """Return the machine and the versions that matter."""
    found: dict[str, Any] = {"processor": platform.processor() or platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found = {
            "device": properties.name,
            "memory GiB": round(properties.total_memory / 2**30),
            "CUDA": torch.version.cuda,
        }
    found |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    return found | read_versions("torch", "transformers", "sentence-transformers", "flash-attn")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=540.0, help="of the whole run, about")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, as on a CPU")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--shapes", nargs="+", choices=_ORDER, default=list(_ORDER))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
