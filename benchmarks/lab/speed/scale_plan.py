"""Prints what an index of a given size takes: hours, bytes, memory, money; each with its formula.

    python -m benchmarks.lab.speed.scale_plan --passages 1e9 --tokens 128
    python -m benchmarks.lab.speed.scale_plan --tokens-per-second 1175     # a measured rate
    python -m benchmarks.lab.speed.scale_plan --measure /tmp/scale         # the write rate here

Every input is an option. docs/scale.md says which defaults are measured, which come from a data
sheet, and which are assumed.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexes.storage.staging import Staging
from retrieval import Document, read_corpus

OFFSETS_BYTES = 4 * 8
"""Of a stored document: four Arrow large_string columns, an offset of 8 bytes each."""

BYTES_PER_NUMBER = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}
QDRANT_OVERHEAD = 1.5
FAISS_ID_BYTES = 8


@dataclass(frozen=True)
class Plan:
    """What goes into a plan; by default millpond-135m on a billion passages.

    Attributes
    ----------
    passages : N.
    tokens : of a passage, T.
    text_bytes : of a passage: id, title, text and metadata.
    dimension : D of a vector.
    weights : how many numbers of the model every token is multiplied by, P.
    layers, width : of the model, L and W; attention's share grows with T.
    peak : of one GPU, floating-point operations per second.
    utilisation : what part of the peak the model reaches (model FLOPs utilisation); assumed.
    tokenized : tokens per second that one core cuts texts into.
    cores : of a worker; it tokenizes on all of them and then computes, in turn.
    tokens_per_second : of one worker, measured; 0 to compute it from the above.
    workers : how many.
    documents_per_second : what the driver reads and writes.
    price : of a worker for an hour, in any currency.
    node_bytes : memory of one Qdrant node.
    node_share : the part of it that is used.
    replicas : how many copies of each shard.
    shards_per_node : Qdrant spreads a collection by shards.
    edges : m of the HNSW graph; its lowest layer has 2 m links of 4 bytes.
    lists, codes : of FAISS' IVF-PQ: centroids, and bytes of a code.
    """

    passages: float = 1e9
    tokens: float = 128.0
    text_bytes: float = 600.0
    dimension: int = 576
    weights: float = 42_467_328.0
    layers: int = 12
    width: int = 576
    peak: float = 989e12
    utilisation: float = 0.1
    tokenized: float = 200_000.0
    cores: float = 8.0
    tokens_per_second: float = 0.0
    workers: int = 8
    documents_per_second: float = 25_000.0
    price: float = 1.0
    node_bytes: float = 512e9
    node_share: float = 0.8
    replicas: int = 1
    shards_per_node: int = 2
    edges: int = 16
    lists: int = 2**20
    codes: int = 64

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        for field in fields(self):
            value = getattr(self, field.name)
            optional = field.name == "tokens_per_second"
            if not math.isfinite(value) or value < 0 or (value == 0 and not optional):
                raise ValueError(f"{field.name} is {value}; it must be above 0.")

    @property
    def operations_per_token(self) -> float:
        """2 P for the weights, and 4 L T W for queries against keys and the sum of values."""
        return 2 * self.weights + 4 * self.layers * self.tokens * self.width

    @property
    def rate(self) -> float:
        """Tokens per second of one worker."""
        if self.tokens_per_second:
            return self.tokens_per_second
        computing = self.operations_per_token / (self.peak * self.utilisation)
        return 1 / (computing + 1 / (self.tokenized * self.cores))

    @property
    def worker_hours(self) -> float:
        """N T / rate, of one worker."""
        return self.passages * self.tokens / self.rate / 3600

    def vector_bytes(self, kind: str) -> float:
        """N D bytes a number."""
        return self.passages * self.dimension * BYTES_PER_NUMBER[kind]

    @property
    def document_bytes(self) -> float:
        """Of ``documents/*.arrow``."""
        return self.passages * (self.text_bytes + OFFSETS_BYTES)

    def qdrant_bytes(self, kind: str) -> float:
        """Memory of a collection.

        float32 is Qdrant's own formula (Capacity Planning: N D 4 bytes 1.5), which includes the
        graph. For the others, ours: the compressed vectors times the same 1.5, and the graph,
        which no compression makes smaller; the originals are on disk.
        """
        held = self.vector_bytes(kind) * QDRANT_OVERHEAD
        graph = 0.0 if kind == "float32" else self.passages * 2 * self.edges * 4
        return (held + graph) * self.replicas

    def qdrant_nodes(self, kind: str) -> int:
        """Memory over what one node gives."""
        return math.ceil(self.qdrant_bytes(kind) / (self.node_bytes * self.node_share))

    def faiss_bytes(self, kind: str) -> float:
        """Of ``index.faiss`` for "Flat", "SQ8", "IVFSQ8" or "IVFPQ"."""
        flat = {"Flat": self.vector_bytes("float32"), "SQ8": self.vector_bytes("int8")}
        if kind in flat:
            return flat[kind]
        code = {"IVFSQ8": self.dimension, "IVFPQ": self.codes}[kind]
        centroids = self.lists * self.dimension * 4
        codebook = 256 * self.dimension * 4 if kind == "IVFPQ" else 2 * self.dimension * 4
        return self.passages * (code + FAISS_ID_BYTES) + centroids + codebook


def plan_lines(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield the table, a group after the other: names, values and formulas."""
    computed = "1 / (operations a token / (peak x utilisation) + 1 / (tokenized x cores))"
    source = "measured" if plan.tokens_per_second else computed
    hours = plan.worker_hours
    yield "operations a token", f"{plan.operations_per_token:,.0f}", "2 P + 4 L T W"
    yield "tokens/s of a worker", f"{plan.rate:,.0f}", source
    yield "worker hours", f"{hours:,.1f}", "N T / tokens/s / 3600"
    shared = f"{hours / plan.workers:,.1f}"
    yield f"hours with {plan.workers} workers", shared, "worker hours / workers"
    yield "price", f"{hours * plan.price:,.2f}", "worker hours x price of an hour"
    written = plan.passages / plan.documents_per_second / 3600
    yield "driver hours", f"{written:,.1f}", "N / documents per second / 3600"
    for kind, size in BYTES_PER_NUMBER.items():
        yield f"vectors, {kind}", _bytes(plan.vector_bytes(kind)), f"N D {size:g}"
    yield "documents", _bytes(plan.document_bytes), f"N (text bytes + {OFFSETS_BYTES})"
    yield "check of ids, memory", _bytes(plan.passages * 16), "N 16"
    for kind in ("float32", "int8", "binary"):
        graph = "" if kind == "float32" else " + N 2 m 4"
        formula = f"(N D {BYTES_PER_NUMBER[kind]:g} x {QDRANT_OVERHEAD:g}{graph}) x replicas"
        yield f"Qdrant memory, {kind}", _bytes(plan.qdrant_bytes(kind)), formula
        nodes = plan.qdrant_nodes(kind)
        shards = nodes * plan.shards_per_node
        formula = (
            f"memory / {_bytes(plan.node_bytes)} / {plan.node_share:g}; nodes x shards of a node"
        )
        yield f"Qdrant nodes, shards, {kind}", f"{nodes}, {shards}", formula
    for kind, formula in (
        ("Flat", "N D 4"),
        ("SQ8", "N D"),
        ("IVFSQ8", "N (D + 8) + lists D 4"),
        ("IVFPQ", "N (codes + 8) + (lists + 256) D 4"),
    ):
        yield f"FAISS {kind}", _bytes(plan.faiss_bytes(kind)), formula


def _bytes(count: float) -> str:
    """Return a size in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} TB"


class Rates(NamedTuple):
    """What this machine's driver reads of JSON lines and stages on the disk, in a second."""

    read_documents: float
    write_documents: float
    write_bytes: float

    @property
    def both_documents(self) -> float:
        """A second, by one driver that reads and writes in turn."""
        return 1 / (1 / self.read_documents + 1 / self.write_documents)


def measure(
    folder: Path,
    plan: Plan,
    *,
    documents: int = 100_000,
    chunk_documents: int = 1024,
    clock: Callable[[], float] = time.perf_counter,
) -> Rates:
    """Write and read a corpus of the plan's sizes in ``folder``, and delete it again.

    Parameters
    ----------
    documents : how many; the vectors are D random numbers each.
    clock : seconds that pass, or with ``time.process_time`` those in which this process computes:
        what is left on a busy machine, without the waiting for the disk.

    Raises
    ------
    OSError : the folder is there already, or the disk refuses.
    """
    folder.mkdir(parents=True)
    try:
        words = ("passage " * math.ceil(plan.text_bytes / 8))[: int(plan.text_bytes)]
        path = folder / "corpus.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for number in range(documents):
                stream.write(json.dumps({"_id": f"p{number:09d}", "text": words}) + "\n")
        began = clock()
        read = sum(1 for _ in read_corpus(str(path)))
        read_seconds = clock() - began
        write_seconds = 0.0
        random = np.random.default_rng(0)
        rows = random.standard_normal((chunk_documents, plan.dimension), dtype=np.float32)
        staging = Staging(folder / "staging", {}, source="corpus", dimension=plan.dimension)
        for start in range(0, documents, chunk_documents):
            numbers = range(start, min(start + chunk_documents, documents))
            chunk = [Document(f"p{number:09d}", words) for number in numbers]
            began = clock()
            staging.append(chunk, rows[: len(chunk)])
            write_seconds += clock() - began
        began = clock()
        staging.finish()
        write_seconds += clock() - began
        size = sum(part.stat().st_size for part in (folder / "staging").rglob("*.*"))
        return Rates(read / read_seconds, documents / write_seconds, size / write_seconds)
    finally:
        shutil.rmtree(folder)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for field in fields(Plan):
        name = f"--{field.name.replace('_', '-')}"
        kind = float if isinstance(field.default, float) else int
        parser.add_argument(name, type=kind, default=field.default, help="default: %(default)s")
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help="is made and deleted")
    parser.add_argument("--cpu-time", action="store_true", help="measure without waiting times")
    options = vars(parser.parse_args(arguments))
    folder, cpu_time = options.pop("measure"), options.pop("cpu_time")
    plan = Plan(**options)
    if folder is not None:
        rates = measure(folder, plan, clock=time.process_time if cpu_time else time.perf_counter)
        print(f"reads {rates.read_documents:,.0f} documents per second")
        print(f"writes {rates.write_documents:,.0f} documents per second")
        print(f"writes {rates.write_bytes / 1e6:,.0f} MB per second")
        print(f"both in turn: {rates.both_documents:,.0f} documents per second")
        return
    for name, value, formula in plan_lines(plan):
        print(f"{name:32}{value:>16}   {formula}")


if __name__ == "__main__":
    main()
