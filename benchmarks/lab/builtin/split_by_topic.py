"""Splits the sources of a training config by topic, so that the pairs of a batch are alike.

    python -m benchmarks.lab.builtin.split_by_topic CONFIG.toml --source NAME ... --out FOLDER

In a batch of one source the documents of the other pairs are the in-batch negatives; if the source
is one topic, they are hard negatives at no cost (topic-aware batches: Hofstätter et al. 2021, arXiv
2104.06967). Topics are k-means clusters of TF-IDF vectors reduced by SVD, seeds fixed. FOLDER gets
``NAME-007.jsonl`` for each topic and ``CONFIG.toml``, in which they stand for the source.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

PAIRS_OF_A_TOPIC = 600
FEWEST_PAIRS = 192
DIMENSIONS = 96
_ENTRY = "[[data]]"
_PATH = re.compile(r'^path = "(.+)"$', re.MULTILINE)


def split_rows(rows: list[dict[str, str]], pairs_of_a_topic: int) -> list[list[dict[str, str]]]:
    """Return the rows in topics of FEWEST_PAIRS or more; the rows of smaller ones are the last."""
    texts = [f"{row['query']} {row['positive']}" for row in rows]
    counts = TfidfVectorizer(sublinear_tf=True, min_df=3, max_df=0.2, stop_words="english")
    weights = counts.fit_transform(texts)
    width = min(DIMENSIONS, weights.shape[1] - 1)
    reduced = TruncatedSVD(width, random_state=0).fit_transform(weights)
    topics = max(2, len(rows) // pairs_of_a_topic)
    means = MiniBatchKMeans(topics, random_state=0, n_init=3, batch_size=4096)
    labels = means.fit_predict(normalize(reduced))
    found, rest = [], []
    for topic in range(topics):
        members = [rows[place] for place in np.flatnonzero(labels == topic)]
        if len(members) >= FEWEST_PAIRS:
            found.append(members)
        else:
            rest += members
    if len(rest) >= FEWEST_PAIRS or not found:
        found.append(rest)
    else:
        found[-1] += rest
    return found


def split_config(config: Path, names: set[str], out: Path) -> dict[str, list[int]]:
    """Write the topics and the config that names them; return the sizes of each source's topics."""
    out.mkdir(parents=True, exist_ok=True)
    head, *entries = config.read_text(encoding="utf-8").split(_ENTRY)
    sizes: dict[str, list[int]] = {}
    written = []
    for entry in entries:
        match = _PATH.search(entry)
        if match is None:
            raise SystemExit(f"an entry of {config} has no path:{entry}")
        source = (config.parent / match[1]).resolve()
        paths = [Path(os.path.relpath(source, out.resolve()))]
        if source.stem in names:
            lines = source.read_text(encoding="utf-8").splitlines()
            topics = split_rows([json.loads(line) for line in lines], PAIRS_OF_A_TOPIC)
            sizes[source.stem] = [len(topic) for topic in topics]
            paths = [Path(f"{source.stem}-{number:03d}.jsonl") for number in range(len(topics))]
            for path, topic in zip(paths, topics, strict=True):
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in topic)
                (out / path).write_text(text, encoding="utf-8")
        written += [entry.replace(match[0], f'path = "{path}"') for path in paths]
    missing = names - set(sizes)
    if missing:
        raise SystemExit(f"{config} has no source named {', '.join(sorted(missing))}.")
    text = _ENTRY.join([head, *written])
    (out / config.name).write_text(text, encoding="utf-8")
    return sizes


def main() -> None:
    """Split the sources named on the command line and say how large the topics are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--source", action="append", required=True, help="name of a data file")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for name, sizes in split_config(options.config, set(options.source), options.out).items():
        print(f"{name}: {len(sizes)} topics of {min(sizes)} to {max(sizes)} pairs")


if __name__ == "__main__":
    main()
