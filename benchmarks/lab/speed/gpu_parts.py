"""The parts of the GPU comparisons: a shape at each length, and whole encoding of texts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.speed import gpu_work as work
from benchmarks.lab.speed.gpu_models import Shape, build_embedder, make_texts
from benchmarks.lab.speed.gpu_run import Run
from benchmarks.lab.speed.gpu_tables import NAIVE, OURS, PADDED, Cell
from benchmarks.lab.speed.interleaved import Contestant, say, take_turns
from embedder import Embedder
from embedder.engine.budget import CUDA_TOKENS, budget_of, is_out_of_memory
from embedder.engine.speed import LayerCompiler

__all__ = ["measure_length", "measure_shape", "measure_texts"]

EncodeIds = Callable[[list[list[int]]], object]

_LENGTHS: tuple[int | str, ...] = (512, "mixed", 32, 128, 2048, 64, 256, 1024)
_ROUNDS = 3
_FEW_TEXTS = 64
_SORTED_TEXTS = 2048
"""sentence-transformers sorts texts by length, which few of them would help little."""


def measure_shape(run: Run, shape: Shape, base: Path | None) -> None:
    """Measure a shape at all lengths; the smallest one against sentence-transformers too."""
    say(f"{shape.name}: {shape.layer_parameters / 1e6:.0f}M weights in its layers")
    embedder = build_embedder(shape, run.device, run.dtype, base)
    packing = embedder.backbone.packing
    weights = "base" if base else "random"
    kernel = packing.kernel.name if packing.longest else "padded"
    run.results.packing[shape.name] = f"{kernel}; {weights} weights"
    tokens = work.settle_budget(embedder, run.longest, 0.04 * run.config.seconds)
    say(f"{shape.name}: {kernel}, {tokens} tokens a batch")
    lengths = [length for length in _LENGTHS if length == "mixed" or int(length) <= run.longest]
    if shape.name == "smollm2-135m":
        name = f"{shape.name} against sentence-transformers"
        run.attempt(name, 0.1 * run.config.seconds, partial(measure_texts, run, embedder))
    for length in lengths:
        name = f"{shape.name} at {length}"
        part = partial(measure_length, run, shape, embedder, length)
        run.attempt(name, 0.03 * run.config.seconds, part)


def measure_length(run: Run, shape: Shape, embedder: Embedder, length: int | str) -> None:
    """Time ours, ours padded and naive on texts of one length, or of mixed ones."""
    lengths = _choose_lengths(run, embedder, length)
    rows = work.random_rows(lengths, embedder)
    padded = _sibling(embedder, budget_of(embedder).tokens)
    padded.packs = False
    encoders: dict[str, EncodeIds] = {OURS: partial(work.encode_ids, embedder)}
    if length == "mixed":  # of one length, none is padded
        encoders[PADDED] = partial(work.encode_ids, padded)
    encoders[NAIVE] = partial(work.encode_naively, embedder)
    contestants = []
    for name, encode in encoders.items():
        try:
            encode(rows[:_FEW_TEXTS])  # warms up
            part = rows if name != NAIVE else rows[: _texts_in_time(run, encode, rows, _FEW_TEXTS)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            run.skip(f"{shape.name} at {length}, {name}: out of memory")
            continue
        share = sum(map(len, part)) / sum(lengths)
        contestants.append(Contestant(name, partial(encode, part), share))
    cosine = float("nan")
    if any(contestant.name == NAIVE for contestant in contestants):
        sample = rows[:_FEW_TEXTS]
        ours, naive = work.encode_ids(embedder, sample), work.encode_naively(embedder, sample)
        cosine = float((ours * naive).sum(axis=1).min())
    timings = take_turns(
        contestants, rounds=_ROUNDS, budget_seconds=min(15, run.seconds_left), notify=_say_nothing
    )
    tokens = budget_of(embedder).tokens
    counts = (len(lengths), sum(lengths), shape.flops(lengths), tokens)
    cell = Cell(shape.name, str(length), *counts, timings, cosine)
    run.results.cells.append(cell)
    mfu = cell.mfu(OURS, run.results.peak_flops)
    say(f"{shape.name} at {length}: {cell.rate(OURS):.0f} tokens/s, MFU {mfu:.1%}")


def measure_texts(run: Run, embedder: Embedder) -> None:
    """Time whole encoding of mixed texts, tokenising included, against sentence-transformers."""
    lengths = work.mixed_lengths(_tokens_in_time(run, embedder, run.longest), run.longest)
    vocabulary = len(embedder.backbone.tokenizer)
    texts = make_texts(lengths, vocabulary)
    compiled = _sibling(embedder, budget_of(embedder).tokens)
    compiled.compiler = LayerCompiler(embedder.backbone.packed_layers, say, repaid_seconds=0.0)
    with tempfile.TemporaryDirectory(prefix="millpond-speed-") as folder:
        work.write_base(embedder, Path(folder))
        peer = work.load_peer(Path(folder), run.device, run.dtype, run.longest)
    encoders: dict[str, Callable[[Sequence[str]], object]] = {OURS: embedder.encode_documents}
    if run.device.type == "cuda":
        encoders[f"{OURS}, compiled"] = compiled.encode_documents
    for size in (32, 128):
        name = f"sentence-transformers, batches of {size}"
        encoders[name] = partial(peer.encode, batch_size=size, show_progress_bar=False)
    contestants = []
    for name, encode in encoders.items():
        encode(texts[:_FEW_TEXTS])
        part = texts
        if not name.startswith(OURS):
            part = texts[: _texts_in_time(run, encode, texts, _SORTED_TEXTS)]
        share = sum(lengths[: len(part)]) / sum(lengths)
        contestants.append(Contestant(name, partial(encode, part), share))
    if run.device.type == "cuda":  # the trial of compiled layers is over before times are taken
        _try_compiled(compiled, texts, min(90, 0.3 * run.seconds_left))
    sample = texts[:_FEW_TEXTS]
    cosine = (embedder.encode_documents(sample) * np.asarray(peer.encode(sample))).sum(axis=1)
    run.results.machine["lowest cosine to sentence-transformers"] = f"{cosine.min():.5f}"
    timings = take_turns(
        contestants, rounds=_ROUNDS, budget_seconds=min(60, run.seconds_left), notify=say
    )
    run.results.against["smollm2-135m, mixed texts"] = (timings, sum(lengths))


def _try_compiled(embedder: Embedder, texts: Sequence[str], seconds: float) -> None:
    """Encode until compiled layers are kept or dropped, for so long at most."""
    compiler = embedder.compiler
    deadline = time.perf_counter() + seconds
    while compiler is not None and compiler.state in ("waiting", "trying"):
        if time.perf_counter() > deadline:
            break
        embedder.encode_documents(texts)
    say(f"compiled layers: {compiler.state if compiler else 'none'}")


def _sibling(embedder: Embedder, batch_tokens: int) -> Embedder:
    """Return an embedder over the same weights with batches of so many tokens, fixed."""
    fixed = batch_tokens - (batch_tokens == CUDA_TOKENS)  # that number would be grown again
    return Embedder(embedder.spec, embedder.backbone, batch_tokens=fixed)


def _choose_lengths(run: Run, embedder: Embedder, length: int | str) -> list[int]:
    sized = run.longest if length == "mixed" else int(length)
    tokens = _tokens_in_time(run, embedder, sized)
    if length == "mixed":
        return work.mixed_lengths(tokens, run.longest)
    return [int(length)] * max(1, tokens // int(length))


def _tokens_in_time(run: Run, embedder: Embedder, length: int) -> int:
    """Return how many tokens ours embeds in the time of one turn; two batches at least."""
    least = 2 * budget_of(embedder).tokens
    rows = work.random_rows([length] * max(1, least // length), embedder)
    seconds = work.time_once(partial(work.encode_ids, embedder, rows))
    return round(least * max(1.0, run.turn_seconds / seconds))


def _texts_in_time(
    run: Run, encode: Callable[[Any], object], texts: Sequence[Any], least: int
) -> int:
    """Return how many texts a peer embeds in one turn, in whole batches; all at most."""
    few = texts[:_FEW_TEXTS]
    seconds = work.time_once(partial(encode, few))
    wanted = max(least, round(len(few) * run.turn_seconds / seconds))
    return min(len(texts), -(-wanted // _FEW_TEXTS) * _FEW_TEXTS)


def _say_nothing(line: str) -> None:
    """Drop a line."""
