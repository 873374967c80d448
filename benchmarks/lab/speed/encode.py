"""Encoding speed against other libraries, in one interleaved run.

    python -m benchmarks.lab.speed.encode DATA
    python -m benchmarks.lab.speed.encode DATA --texts 200 --threads 1 --rounds 2

All contestants have the same weights, the same tokens (EOS at the end, no chat template) and mean
pooling, without the whitening that a model may have. They take turns within a round, and ratios
are taken within rounds. Texts are SciFact documents and STS sentences. Naive transformers, which
batches texts in input order, embeds the first eighth of 512 texts or more. ONNX Runtime and
OpenVINO take part if they are installed. Rounds stop before ``--seconds`` are over, but one is
always finished.

The command line of millpond lets OpenMP's threads sleep (``cli.app.share_cores``); for the same
here, set GOMP_SPINCOUNT=1000.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.lab.speed.baselines import (
    NaiveEncoder,
    OnnxEncoder,
    OpenVinoEncoder,
    is_installed,
    load_sentence_transformer,
    write_plain_base,
)
from benchmarks.lab.speed.interleaved import (
    Contestant,
    Timings,
    describe_machine,
    format_table,
    say,
    take_turns,
)
from embedder import Embedder
from embedder.environment import Speed, keep_freed_memory
from embedder.pooling.registry import without_whitening
from retrieval import read_corpus
from retrieval.corpus.labelled import read_sts
from retrieval.errors import MillpondError, SourceNotFoundError
from retrieval.protocols import Vectors

Encode = Callable[[Sequence[str]], Vectors]

BASELINE = "sentence-transformers, batches of 32"
ONNX = "ONNX Runtime float32, batches of 32"
OPENVINO = "OpenVINO float32, batches of 32"
REFERENCE_TEXTS = 24
NAIVE_BATCHES = (32, 64)
_SAMPLED_FROM_TEXTS = 512
_WARMING_TEXTS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print its table; return the exit code."""
    config = _parse(arguments)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()  # as the commands that embed do; a gain for every contestant
    try:
        texts = read_texts(config.data, config.texts, config.documents_share)
        if config.tokens:
            texts = lengthen(texts, config.tokens)
        with tempfile.TemporaryDirectory(prefix="millpond-speed-") as folder:
            compare(config, texts, Path(folder))
    except MillpondError as error:
        say(f"error: {error}")
        return 1
    return 0


def compare(config: Namespace, texts: Sequence[str], folder: Path) -> None:
    """Time all contestants on ``texts`` and print the machine and the table."""
    packed = _load(config)
    write_plain_base(packed, folder)
    encoders = {
        name: encode
        for name, encode in make_encoders(config, packed, folder).items()
        if _wants(config, name)
    }
    tokens = sum(map(len, packed.tokenize(texts)))
    say(f"{len(texts)} texts, {tokens} tokens; {len(encoders)} contestants")
    for encode in encoders.values():
        encode(texts[:_WARMING_TEXTS])
    cosines = lowest_cosines(encoders, texts, NaiveEncoder(folder, packed.spec.max_tokens, 1))
    with busy_processes(config.busy):
        timings = take_turns(
            [make_contestant(name, encode, packed, texts) for name, encode in encoders.items()],
            rounds=config.rounds,
            budget_seconds=config.seconds,
            notify=say,
            clock=time.process_time if config.cpu_time else time.perf_counter,
        )
    print(describe(packed, texts, tokens, timings, "CPU" if config.cpu_time else "wall"))
    against = [name for name in (BASELINE, _naive(64)) if name in encoders]
    extra = {"lowest cosine to plain fp32": {n: f"{c:.7f}" for n, c in cosines.items()}}
    print("\n".join(format_table(timings, tokens, against, extra)))


def _wants(config: Namespace, name: str) -> bool:
    return any(word in name for word in config.only.split(","))


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let so many other processes compute inside the block."""
    loop = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def make_encoders(config: Namespace, packed: Embedder, folder: Path) -> dict[str, Encode]:
    """Return the contestants: ours by setting, then the baselines in ``folder``."""
    padded = _load(config)
    padded.packs = False
    fast = _load(config, "fast")
    encoders: dict[str, Encode] = {
        "millpond padded": padded.encode_documents,
        "millpond exact (packed)": packed.encode_documents,
    }
    if fast.is_int8:
        encoders["millpond fast (int8)"] = fast.encode_documents
    longest = packed.spec.max_tokens
    plain = load_sentence_transformer(folder, longest)
    encoders[BASELINE] = partial(plain.encode, batch_size=32, show_progress_bar=False)
    if not is_installed("onnx", "onnxscript", "onnxruntime"):
        say("not installed: millpond[export]")
    elif _wants(config, ONNX):  # exporting takes a minute
        encoders[ONNX] = OnnxEncoder(packed, folder / "onnx", 32).encode
    if not is_installed("openvino"):
        say("not installed: openvino")
    elif _wants(config, OPENVINO):
        encoders[OPENVINO] = OpenVinoEncoder(folder, longest, 32).encode
    for size in NAIVE_BATCHES:
        encoders[_naive(size)] = NaiveEncoder(folder, longest, size).encode
    return encoders


def make_contestant(name: str, encode: Encode, model: Embedder, texts: Sequence[str]) -> Contestant:
    """Return the encoder with its texts: all of them, or the first eighth in input order."""
    part = texts
    if name in map(_naive, NAIVE_BATCHES) and len(texts) >= _SAMPLED_FROM_TEXTS:
        part = texts[: len(texts) // 8]
    lengths = list(map(len, model.tokenize(texts)))
    return Contestant(name, partial(encode, part), sum(lengths[: len(part)]) / sum(lengths))


def _naive(batch_texts: int) -> str:
    return f"naive, batches of {batch_texts}"


def lowest_cosines(
    encoders: dict[str, Encode], texts: Sequence[str], plain: NaiveEncoder
) -> dict[str, float]:
    """Return each contestant's lowest cosine to transformers in float32, one text at a time."""
    step = max(1, len(texts) // REFERENCE_TEXTS)
    sample = list(texts[::step][:REFERENCE_TEXTS])
    expected = plain.encode(sample)
    return {
        name: float((np.asarray(encode(sample)) * expected).sum(axis=1).min())
        for name, encode in encoders.items()
    }


def read_texts(data: Path, count: int, documents_share: float) -> list[str]:
    """Return SciFact documents and STS sentences, shuffled by a fixed seed.

    Raises
    ------
    SourceNotFoundError : the folder lacks beir/scifact/corpus.jsonl or sts/STSB-train.tsv.
    """
    corpus, pairs = data / "beir/scifact/corpus.jsonl", data / "sts/STSB-train.tsv"
    for path in (corpus, pairs):
        if not path.is_file():
            raise SourceNotFoundError(f"{path} is not there; expected a folder with both.")
    documents = [document.content for document in read_corpus(corpus)]
    sts = read_sts(pairs)
    sentences = [sentence for pair in zip(sts.first, sts.second, strict=True) for sentence in pair]
    generator = random.Random(0)
    wanted = min(len(documents), round(count * documents_share))
    texts = generator.sample(documents, wanted)
    texts += generator.sample(sentences, min(len(sentences), count - wanted))
    generator.shuffle(texts)
    return texts


def lengthen(texts: Sequence[str], tokens: int) -> list[str]:
    """Return as many texts of the same words, each of more words than it may have tokens."""
    words = [word for text in texts for word in text.split()]
    generator = random.Random(0)
    return [" ".join(generator.choices(words, k=tokens)) for _ in texts]


def describe(
    model: Embedder, texts: Sequence[str], tokens: int, timings: Timings, clock: str
) -> str:
    """Return one paragraph on what was run where."""
    return (
        f"{model.name}, {len(texts)} texts, {tokens} tokens, {timings.rounds} interleaved rounds "
        f"in {clock} time, batches of {model.batch_tokens} tokens, {torch.get_num_threads()} "
        f"threads; {describe_machine()}\n"
    )


def _load(config: Namespace, speed: Speed = "exact") -> Embedder:
    embedder = Embedder.load(
        config.model,
        device="cpu",
        batch_tokens=config.batch_tokens,
        speed=speed,
        notify=say,
    )
    embedder.pooling = without_whitening(embedder.pooling)  # the baselines have none
    return embedder


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with beir/scifact and sts")
    parser.add_argument("--model", default="millpond-135m", help="mean+causal without prompts")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--documents-share", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=480.0, help="of all rounds")
    parser.add_argument("--threads", type=int, help="torch's own choice by default")
    parser.add_argument("--batch-tokens", type=int, help="of ours; its own choice by default")
    parser.add_argument("--only", default="", help="contestants with one of these words: A,B,...")
    parser.add_argument("--tokens", type=int, help="of every text; the model's max_tokens allow it")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine; --threads 1")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
