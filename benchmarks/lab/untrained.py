"""Scores every parameter-free variant of an untrained base in one pass per attention.

    python -m benchmarks.lab.untrained ../shared/data --base smollm2-135m --out untrained.json

Poolings that read the same states share one forward pass, and so do depths: the base cut to its
first N layers has the final norm put on layer N's output. Retrieval is exact cosine, nDCG@10 by
pytrec_eval on ``qrels/test.tsv``; STS is Spearman's rank correlation of cosine with the score.
Finished passes are kept in the output file, so a killed run goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from embedder.attention import ATTENTIONS
from embedder.embedder import Embedder, token_batches
from embedder.engine.text import pad_batch
from embedder.pooling import POOLINGS, PoolingOptions, build_pooling
from embedder.pooling.registry import PoolingShape
from embedder.variants import VariantSpec
from retrieval import read_corpus, read_queries

Vectors = dict[tuple[str, int], np.ndarray]


@dataclass(frozen=True)
class Pass:
    """One forward pass over all texts: the attention, and the poolings that share its input."""

    attention: str
    poolings: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the output file calls it."""
        return f"{'/'.join(self.poolings)}+{self.attention}"


def passes() -> list[Pass]:
    """Group the parameter-free poolings over tokens by what is put to the base."""
    free = [POOLINGS[name] for name in free_poolings()]
    frames = list(dict.fromkeys((p.template, p.appends_eos) for p in free))
    return [
        Pass(attention, tuple(p.name for p in free if (p.template, p.appends_eos) == frame))
        for frame in frames
        for attention in ATTENTIONS
    ]


def free_poolings() -> list[str]:
    """Return the names of the parameter-free poolings that read the tokens of the last layer."""
    return [
        name
        for name, pooling in POOLINGS.items()
        if not pooling.trainable and pooling.reads(True, PoolingOptions()) == "tokens"
    ]


class SharedEncoder:
    """Encodes once for several parameter-free poolings and depths (0 for the whole base)."""

    def __init__(self, base: str, job: Pass, depths: list[int], max_tokens: int) -> None:
        spec = VariantSpec(
            base=base,
            pooling=job.poolings[0],
            attention=job.attention,
            max_tokens=max_tokens,
            base_layers=None if 0 in depths else max(depths),
        )
        self.embedder = Embedder.from_spec(spec, notify=print)
        self.depths = {depth or self.embedder.backbone.layer_count: depth for depth in depths}
        self.job = job

    @torch.inference_mode()
    def __call__(self, texts: list[str], label: str) -> Vectors:
        """Return unit vectors (N, D) for each pooling and depth."""
        embedder, started = self.embedder, time.monotonic()
        rows = embedder.tokenize(texts)
        keys = [(pooling, depth) for pooling in self.job.poolings for depth in self.depths]
        shape = (len(texts), embedder.dimension)
        found = {key: np.empty(shape, dtype=np.float32) for key in keys}
        batches = list(token_batches([len(row) for row in rows], embedder.batch_tokens))
        for number, chosen in enumerate(batches):
            ids, mask = pad_batch([rows[index] for index in chosen], 0)
            states = self._states(ids, mask)
            for pooling, depth in keys:
                pooled = pool(pooling, states[depth].float(), mask.bool())
                found[pooling, depth][chosen] = F.normalize(pooled, dim=-1).numpy()
            if number % 50 == 0:
                seconds = time.monotonic() - started
                print(f"{label}: batch {number}/{len(batches)}, {seconds:.0f} s", flush=True)
        return found

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return each depth's states after the final norm, (B, T, D)."""
        backbone = self.embedder.backbone
        norm: Any = backbone.model.norm
        kept: dict[int, torch.Tensor] = {}

        def keep(depth: int) -> Callable[[Any, Any, Any], None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                kept[depth] = output[0] if isinstance(output, tuple) else output

            return hook

        blocks = backbone.blocks()
        hooks = [
            blocks[depth - 1].register_forward_hook(keep(depth))
            for depth in self.depths
            if depth < backbone.layer_count
        ]
        last = backbone.token_states(ids, mask)
        for hook in hooks:
            hook.remove()
        return {d: norm(kept[d]) if d in kept else last for d in self.depths}


def pool(name: str, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pool (B, T, D) to (B, D) with a parameter-free pooling."""
    module = build_pooling(name, PoolingShape(states.shape[-1], 1), PoolingOptions())
    pooled: torch.Tensor = module(states, mask)
    return pooled


def score_retrieval(folder: Path, encode: SharedEncoder) -> dict[tuple[str, int], float]:
    """Return nDCG@10 for each pooling and depth on one BEIR folder."""
    import pytrec_eval

    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    documents = list(read_corpus(folder))
    queries = [query for query in read_queries(folder) if query.query_id in qrels]
    stored = encode([document.content for document in documents], folder.name)
    asked = encode([query.text for query in queries], f"{folder.name} queries")
    ids = [document.doc_id for document in documents]
    scores = {}
    for key, vectors in stored.items():
        similarity = asked[key] @ vectors.T
        top = np.argsort(-similarity, axis=1, kind="stable")[:, :100]
        run = {
            query.query_id: {ids[j]: float(similarity[i, j]) for j in top[i]}
            for i, query in enumerate(queries)
        }
        each = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10"}).evaluate(run)
        scores[key] = float(np.mean([row["ndcg_cut_10"] for row in each.values()]))
    return scores


def score_sts(path: Path, encode: SharedEncoder) -> dict[tuple[str, int], float]:
    """Return Spearman's correlation for each pooling and depth on one STS file."""
    from scipy.stats import spearmanr

    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    gold = [float(row["score"]) for row in rows]
    texts = [row["sentence1"] for row in rows] + [row["sentence2"] for row in rows]
    half = len(rows)
    return {
        key: float(spearmanr((v[:half] * v[half:]).sum(axis=1), gold).statistic)
        for key, v in encode(texts, path.stem).items()
    }


Scorer = Callable[[SharedEncoder], dict[tuple[str, int], float]]


TASKS = ("STSB-test", "cranfield", "scifact")


def tasks(data: Path) -> Iterator[tuple[str, Scorer]]:
    """Yield each task's name and scorer, cheap ones first."""
    yield "STSB-test", partial(score_sts, data / "sts" / "STSB-test.tsv")
    for name in ("cranfield", "scifact"):
        yield name, partial(score_retrieval, data / "beir" / name)


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the results as a Markdown table, best SciFact first."""
    columns = ["scifact", "cranfield", "STSB-test"]
    lines = ["| variant | layers | " + " | ".join(columns) + " |", "|---" * 5 + "|"]
    for key in sorted(results, key=lambda key: -results[key].get("scifact", 0.0)):
        variant, _, depth = key.partition(" @")
        cells = [f"{results[key][c]:.3f}" if c in results[key] else "" for c in columns]
        lines.append(f"| {variant} | {depth} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Run every pass that the output file lacks, keeping each task's scores at once."""
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    results: dict[str, dict[str, float]] = kept.get("results", {})
    for job in passes():
        if not set(job.poolings) & set(options.poolings):
            continue
        names = [f"{p}+{job.attention} @{d or 'all'}" for p in job.poolings for d in options.depths]
        encode = None
        for task, score in tasks(options.data):
            if task not in options.tasks:
                continue
            if all(task in results.get(name, {}) for name in names):
                continue
            encode = encode or SharedEncoder(options.base, job, options.depths, options.max_tokens)
            for (pooling, layers), value in score(encode).items():
                depth = encode.depths[layers] or "all"
                results.setdefault(f"{pooling}+{job.attention} @{depth}", {})[task] = value
            kept = {"base": options.base, "max_tokens": options.max_tokens, "results": results}
            options.out.write_text(json.dumps(kept, indent=1) + "\n")
            print(table(results), flush=True)
    return results


def main() -> None:
    """Run what is missing, keep it, print the table."""
    free = free_poolings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with beir/ and sts/")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--depths", type=int, nargs="+", default=[0], help="layers kept; 0 for all")
    parser.add_argument("--poolings", nargs="+", default=free, choices=free)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--out", type=Path, required=True)
    print(table(run(parser.parse_args())))


if __name__ == "__main__":
    main()
