"""Small data sets and an encoder without a model."""

import json
import os
import signal
from hashlib import blake2b
from pathlib import Path

import numpy as np

from benchmarks.scoring.models import LoadedModel
from retrieval import Fingerprint
from retrieval.errors import ModelError

DIMENSION = 32


class SidedEncoder:
    """Texts of both sides go to ``_encode``, which notes them in ``calls``."""

    def __init__(self, model, settings=None):
        self.fingerprint = Fingerprint(model, {"model": model} | (settings or {}))
        self.calls = []

    def encode_documents(self, texts):
        return self._encode(texts, "document")

    def encode_queries(self, texts):
        return self._encode(texts, "query")


class WordEncoder(SidedEncoder):
    """Unit vectors that count words, each hashed to one of 32 coordinates.

    ``log`` gets a line "side count" for each call; ``die_at`` kills the process, as ``kill -9``
    does, when that call (from 1) is made.
    """

    dimension = DIMENSION

    def __init__(self, model, log=None, die_at=0):
        super().__init__(model)
        self.log = log
        self.die_at = die_at

    def _encode(self, texts, side):
        self.calls.append((side, len(texts)))
        if len(self.calls) == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.log is not None:
            with Path(self.log).open("a") as stream:
                stream.write(f"{side} {len(texts)}\n")
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split() or [""]:
                vectors[row, blake2b(word.encode(), digest_size=1).digest()[0] % DIMENSION] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class NanEncoder(WordEncoder):
    """Gives NaN for every text."""

    def _encode(self, texts, side):
        return super()._encode(texts, side) * np.float32(np.nan)


class Models:
    """Stands in for ``load_model``: holds the names that were loaded and their encoders."""

    def __init__(self, make=WordEncoder, sources=()):
        self.make = make
        self.sources = sources
        self.loaded = []
        self.encoders = {}

    def __call__(self, name, device, notify):
        if name.startswith("broken"):
            raise ModelError(f"{name} cannot be loaded.")
        self.loaded.append(name)
        encoder = NanEncoder(name) if name.startswith("nan") else self.make(name)
        self.encoders[name] = encoder
        return LoadedModel(
            encoder,
            lambda texts, side: sum(len(text.split()) for text in texts),
            {"parameters": 7.0},
            sources=self.sources,
        )

    @property
    def calls(self):
        return [call for encoder in self.encoders.values() for call in encoder.calls]


def write_beir(folder, documents, queries, qrels, split="test"):
    """Write a BEIR folder: id to text, id to text, rows of (query, document, score)."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    write_tsv(folder / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore", *qrels)
    return folder


def write_tsv(path, header, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_ponds(folder):
    """Write three documents and two queries that share words with one of them each."""
    return write_beir(
        folder,
        {
            "a": "water flows down hill",
            "b": "mills grind corn",
            "c": "a pond holds still water",
        },
        {"q1": "grind corn", "q2": "still pond", "q3": "never judged"},
        [("q1", "b", 1), ("q2", "c", 2), ("q2", "a", 0)],
    )


def write_pairs(path):
    return write_tsv(
        path,
        "score\tsentence1\tsentence2",
        (5, "a mill grinds", "a mill grinds"),
        (3, "a mill grinds", "a mill stands"),
        (0, "a mill grinds", "still water"),
    )


def write_labels(folder, per_label=9):
    """Write a classification task that words decide: wet against dry."""
    rows = [
        (label, f"{label} word{number}") for number in range(per_label) for label in ("wet", "dry")
    ]
    write_tsv(folder / "train.tsv", "label\ttext", *rows)
    write_tsv(folder / "test.tsv", "label\ttext", ("wet", "wet thing"), ("dry", "dry thing"))
    return folder


def write_clusters(path, per_label=20):
    rows = [(label, f"{label} {label}") for _ in range(per_label) for label in ("wet", "dry")]
    return write_tsv(path, "label\ttext", *rows)


def write_all(folder):
    """Write one task of each task type under a folder."""
    write_ponds(folder / "beir" / "ponds")
    write_pairs(folder / "sts" / "pairs.tsv")
    write_labels(folder / "classification" / "wetness")
    write_clusters(folder / "clustering" / "weather.tsv")
    return folder
