"""Encoding on a GPU against other libraries, in one command: tokens per second and MFU.

    python -m benchmarks.lab.speed.gpu --out gpu.json
    python -m benchmarks.lab.speed.gpu --out gpu.json --device cpu     # tiny shapes: does it run?

Random Llamas of the sizes of smollm2-135m, 0.5B and 7B, in bfloat16, mean+causal; tokenising is
included. MFU is the operations of the layers (2 per weight and token, and attention's under a
causal mask) over the card's own peak at bfloat16 matrix products, measured first. "Naive" is
transformers with the same weights, batches of 64 in input order, all hidden states kept; like
sentence-transformers it embeds the first eighth. Contestants take turns, and ratios are taken
within rounds. What fails, or begins after ``--seconds``, is left out with a line.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Timer

from benchmarks.lab.speed.baselines import (
    average,
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
from embedder import Embedder, VariantSpec
from embedder.engine.backbone import Backbone
from embedder.engine.batches import CUDA_TOKENS, budget_of, pad_batch
from embedder.environment import choose_device
from embedder.variants import ATTENTIONS
from retrieval.errors import MillpondError
from retrieval.protocols import Vectors, silent

OURS, PADDED, NAIVE = "millpond", "millpond padded", "naive, batches of 64"
BASELINE = "sentence-transformers, batches of 128"
LENGTHS: tuple[int | str, ...] = ("mixed", 32, 128, 512, 2048)
LONGEST_TOKENS = 2048
NAIVE_BATCH_TEXTS = 64
_ROUNDS = 3
_FEW_TEXTS = 64

Encode = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama decoder."""

    name: str
    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights of the linear layers, which every token is multiplied with; no embeddings."""
        head = self.width // self.heads
        attention = 2 * self.width * head * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    def flops(self, lengths: Sequence[int]) -> float:
        """Return the floating-point operations of one causal pass over texts of these lengths.

        Two per weight and token. Attention, of which a causal mask needs half, takes two products
        of n x n / 2 numbers by the width of the heads.
        """
        pairs = sum(length * length for length in lengths) / 2
        return 2.0 * self.layer_parameters * sum(lengths) + 4.0 * pairs * self.width * self.layers


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("smollm2-135m", 576, 1536, 30, 9, 3, 49_152),
        Shape("llama-7b", 4096, 11_008, 32, 32, 32, 32_000),
        Shape("llama-0.5b", 1024, 4096, 28, 16, 8, 49_152),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all comparisons, write the JSON and print the tables; return the exit code."""
    asked = _parse(arguments)
    try:
        device = choose_device(asked.device)
    except MillpondError as error:
        say(f"error: {error}")
        return 1
    tiny = device.type != "cuda"
    dtype = torch.float32 if tiny else torch.bfloat16
    peak = matmul_peak(device, dtype, (256,) if tiny else (8192, 16_384))
    print(f"{_describe(device)}; matrix-product peak, measured: {peak / 1e12:.4g} TFLOP/s")
    began, rows, has_failed = time.perf_counter(), [], False
    for name in asked.shapes:
        shape = SHAPES[name]
        if tiny:
            shape = replace(
                shape, width=24, inner=32, layers=2, heads=3, key_heads=1, vocabulary=200
            )
        embedder = build_embedder(shape, device, dtype)
        for length in LENGTHS if not tiny else ("mixed", 32):
            if time.perf_counter() - began > asked.seconds:
                say(f"left out: {name} at {length}: {asked.seconds:.0f} s are over")
                continue
            try:
                row = measure(embedder, shape, length, 0.05 if tiny else 1.0)
            except Exception as error:  # the other rows are worth having all the same
                say(f"left out: {name} at {length}: {type(error).__name__}: {error}")
                has_failed = True
                continue
            rows.append(row)
            asked.out.write_text(json.dumps({"peak": peak, "rows": rows}, indent=1) + "\n")
            print("\n".join(["", *describe(row, peak)]), flush=True)
        del embedder
        torch.cuda.empty_cache()
    return 1 if has_failed else 0


def measure(
    embedder: Embedder, shape: Shape, length: int | str, turn_seconds: float
) -> dict[str, Any]:
    """Return what the JSON file holds of texts of one length, or of mixed ones.

    ``turn_seconds`` is what ours takes in one turn, about.
    """
    tokens = settle_budget(embedder, turn_seconds)
    lengths = list(draw_lengths(length, tokens))
    texts = make_texts(lengths, shape.vocabulary)
    encoders = make_encoders(embedder, length == "mixed", shape.name == "smollm2-135m")
    few, vectors = texts[:_FEW_TEXTS], {}
    for name, encode in encoders.items():
        vectors[name] = np.asarray(encode(few))  # warms up
    eighth = texts[: max(_FEW_TEXTS, len(texts) // 8)]
    share = sum(lengths[: len(eighth)]) / sum(lengths)
    timings = take_turns(
        [
            Contestant(name, partial(encode, eighth), share)
            if name in (NAIVE, BASELINE)
            else Contestant(name, partial(encode, texts))
            for name, encode in encoders.items()
        ],
        rounds=_ROUNDS,
        budget_seconds=60 * turn_seconds,
        notify=silent,
    )
    packing = embedder.backbone.packing
    return {
        "shape": shape.name,
        "attention": packing.kernel.name if packing.longest else "padded",
        "length": length,
        "batch_tokens": budget_of(embedder).tokens,
        "tokens": sum(lengths),
        "flops": shape.flops(lengths),
        "seconds": timings.seconds,
        "lowest_cosine": {
            name: float((vectors[OURS] * found).sum(axis=1).min())
            for name, found in vectors.items()
        },
    }


def describe(row: dict[str, Any], peak: float) -> list[str]:
    """Return a title and a table of one row of the JSON file."""
    timings, tokens = Timings(row["seconds"]), row["tokens"]
    reached = {
        name: f"{row['flops'] / statistics.median(found) / peak:.1%}"
        for name, found in timings.seconds.items()
    }
    cosines = {name: f"{cosine:.5f}" for name, cosine in row["lowest_cosine"].items()}
    others = [name for name in timings.seconds if name != OURS]
    return [
        f"**{row['shape']}, {row['length']}** ({tokens} tokens, {row['batch_tokens']} a batch, "
        f"attention: {row['attention']})",
        "",
        *format_table(timings, tokens, others, {"MFU": reached, "lowest cosine": cosines}),
    ]


def make_encoders(embedder: Embedder, is_mixed: bool, with_library: bool) -> dict[str, Encode]:
    """Return the contestants; of texts of one length none is padded, so two are for mixed ones."""
    encoders: dict[str, Encode] = {OURS: embedder.encode_documents}
    if is_mixed:
        tokens = budget_of(embedder).tokens
        fixed = tokens - (tokens == CUDA_TOKENS)  # that number would be grown again
        padded = Embedder(embedder.spec, embedder.backbone, batch_tokens=fixed)
        padded.packs = False
        encoders[PADDED] = padded.encode_documents
    if is_mixed and with_library:
        model: Any = embedder.backbone.model
        with tempfile.TemporaryDirectory(prefix="millpond-speed-") as folder:
            write_plain_base(embedder, Path(folder))
            library = load_sentence_transformer(
                Path(folder), LONGEST_TOKENS, str(embedder.device), model.dtype
            )
        encoders[BASELINE] = partial(library.encode, batch_size=128, show_progress_bar=False)
    encoders[NAIVE] = partial(encode_naively, embedder)
    return encoders


@torch.inference_mode()
def encode_naively(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """Return the vectors as transformers in most examples computes them.

    Batches of 64 in input order, padded, all hidden states kept, every batch waited for.
    """
    model: Any = embedder.backbone.model
    found = []
    for start in range(0, len(texts), NAIVE_BATCH_TEXTS):
        rows = embedder.tokenize(texts[start : start + NAIVE_BATCH_TEXTS])
        ids, mask = pad_batch(rows, embedder.pad_id)
        ids, mask = ids.to(embedder.device), mask.to(embedder.device)
        kept = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        found.append(average(kept[-1].float(), mask).cpu().numpy())
    return np.concatenate(found)


def settle_budget(embedder: Embedder, turn_seconds: float) -> int:
    """Return how many tokens ours embeds in one turn, once its tokens per batch are found.

    On a CPU, where there is nothing to find, one batch is run to warm up.
    """
    budget = budget_of(embedder)
    deadline = time.perf_counter() + 20 * turn_seconds
    while True:
        lengths = [256] * max(1, 3 * budget.tokens // 256)
        texts = make_texts(lengths, len(embedder.backbone.tokenizer))
        began = time.perf_counter()
        embedder.encode_documents(texts)
        now = time.perf_counter()
        if budget.is_settled or now > deadline:
            return round(sum(lengths) * max(1.0, turn_seconds / (now - began)))


def draw_lengths(length: int | str, tokens: int) -> Iterator[int]:
    """Yield lengths that add up to about so many tokens: all the same, or "mixed".

    Mixed ones are many short texts and few long ones: log-normal with a median of 64 tokens.
    """
    generator = random.Random(0)
    while tokens > 0:
        drawn = round(generator.lognormvariate(math.log(64), 1.1))
        found = min(LONGEST_TOKENS, max(4, drawn)) if length == "mixed" else int(length)
        tokens -= found
        yield found


def make_texts(lengths: Sequence[int], vocabulary: int) -> list[str]:
    """Return texts of random words with so many tokens each, including EOS at the end."""
    generator = random.Random(0)
    return [
        " ".join(f"w{generator.randrange(2, vocabulary)}" for _ in range(length - 1))
        for length in lengths
    ]


def matmul_peak(device: torch.device, dtype: torch.dtype, sizes: Sequence[int]) -> float:
    """Return FLOP/s of the fastest of square matrix products, each a median over a second."""
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        timer = Timer("torch.mm(left, right)", globals={"left": left, "right": right})
        best = max(best, 2 * size**3 / timer.blocked_autorange(min_run_time=1.0).median)
    return best


def build_embedder(shape: Shape, device: torch.device, dtype: torch.dtype) -> Embedder:
    """Return mean+causal over random weights of this shape, made on the device itself.

    A text of n words has n tokens; "w5" is token 5.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    library: Any = transformers  # its classes have no types
    config = library.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=LONGEST_TOKENS,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = library.AutoModel.from_config(config, dtype=dtype)
    words = {f"w{number}": number for number in range(2, shape.vocabulary)}
    words |= {"<pad>": 0, "<eos>": 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = library.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<eos>"
    )
    spec = VariantSpec(
        base=shape.name, pooling="mean", attention="causal", max_tokens=LONGEST_TOKENS
    )
    model = model.eval().requires_grad_(False)
    backbone = Backbone(model, made, ATTENTIONS["causal"], "benchmark", shape.name)
    return Embedder(spec, backbone, name=shape.name)


def _describe(device: torch.device) -> str:
    if device.type != "cuda":
        return describe_machine()
    card = torch.cuda.get_device_properties(device)
    return (
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}; "
        f"{describe_machine()}"
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=540.0, help="after which no row begins")
    parser.add_argument("--device", help="default: cuda if there is one")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
