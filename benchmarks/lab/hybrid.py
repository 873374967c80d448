"""nDCG@10 of both arms and of their fusions on BEIR folders: the table of docs/hybrid.md.

    python -m benchmarks.lab.hybrid INDEXES DATA scifact medline [--split test] [--curve]

reads the indexes INDEXES/NAME and the judgements DATA/NAME/qrels/SPLIT.tsv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.tuning import CUT, WEIGHTS, score_weights
from indexes import Index
from retrieval import Vectors, read_queries
from retrieval.corpus.qrels import find_beir, read_qrels
from retrieval.retriever import Retriever
from retrieval.scores import ndcg

SEARCHES = {
    "bm25": ("lexical", "convex"),
    "dense": ("dense", "convex"),
    "hybrid": ("hybrid", "convex"),
    "rrf": ("hybrid", "rrf"),
}
DEPTH = 100


def main() -> None:
    """Print the table, or the curve over the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("indexes", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--split", default="test")
    parser.add_argument("--curve", action="store_true", help="print the mean of every weight")
    options = parser.parse_args()
    head = [f"{weight:g}" for weight in WEIGHTS] if options.curve else list(SEARCHES)
    print("| set | queries | " + " | ".join(head) + " |")
    print("|---|---:|" + "---:|" * len(head))
    means = []
    for name in options.names:
        count, scores = _score(options.indexes / name, options.data / name, options)
        means.append(scores)
        print(
            f"| {name} | {count:,} | " + " | ".join(f"{s:.4f}" for s in scores) + " |", flush=True
        )
    if len(means) > 1:
        print("| mean | | " + " | ".join(f"{s:.4f}" for s in np.mean(means, axis=0)) + " |")


def _score(folder: Path, data: Path, options: argparse.Namespace) -> tuple[int, list[float]]:
    files = find_beir(data, options.split)
    judged: dict[str, dict[str, int]] = {}
    for one in read_qrels(files.qrels).judgements:
        judged.setdefault(one.query_id, {})[one.doc_id] = one.score
    relevant = {query for query, found in judged.items() if max(found.values()) > 0}
    queries = [query for query in read_queries(str(files.queries)) if query.query_id in relevant]
    with Retriever.open(folder) as retriever:
        index = retriever.index
        assert isinstance(index, Index)
        if options.curve:
            scores = score_weights(index, retriever.encoder, queries, judged)
            return len(queries), scores.mean(axis=0).tolist()
        texts = [query.text for query in queries]
        vectors = retriever.encoder.encode_queries(texts)
        means = []
        for mode, fusion in SEARCHES.values():
            asked: Vectors | list[str] = texts if mode == "lexical" else vectors
            found = index.search(
                asked, DEPTH, with_text=False, texts=texts, mode=mode, fusion=fusion
            )
            row = [
                ndcg([hit.doc_id for hit in hits], judged[query.query_id], CUT)
                for query, hits in zip(queries, found, strict=True)
            ]
            means.append(float(np.mean(row)))
        return len(queries), means


if __name__ == "__main__":
    main()
