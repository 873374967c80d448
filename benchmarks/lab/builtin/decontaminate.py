"""Keeps what the model is judged on out of what it is trained on."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab.builtin.pairs import Pair, split_sentences, text_key, words
from retrieval.corpus.labelled import STS_COLUMNS, read_table
from retrieval.errors import SourceNotFoundError

GRAM_WORDS = 8
SHORTEST_PIECE_WORDS = 4
SHORTEST_TITLE_WORDS = 4
"""A shorter title ("Oxygen") is a term, and says nothing about the document under it."""


def word_grams(text: str, size: int = GRAM_WORDS) -> Iterator[str]:
    """Every run of ``size`` words of the text."""
    tokens = words(text)
    return (" ".join(tokens[start : start + size]) for start in range(len(tokens) - size + 1))


def long_pieces(text: str) -> Iterator[str]:
    """Sentences of the text and what its semicolons and colons part, of four words or more."""
    for sentence in split_sentences(text):
        for piece in (sentence, *re.split(r"[;:]\s", sentence)):
            if len(words(piece)) >= SHORTEST_PIECE_WORDS:
                yield piece


@dataclass(frozen=True)
class Benchmarks:
    """What no training text may equal (``keys``) or share a run of eight words with (``grams``)."""

    keys: frozenset[str]
    grams: frozenset[str]

    def find_overlap(self, text: str) -> str | None:
        """The way in which the text touches a benchmark, or None if it does not."""
        if text_key(text) in self.keys:
            return "equal to a benchmark text"
        if any(text_key(piece) in self.keys for piece in long_pieces(text)):
            return "holds a benchmark sentence"
        if any(gram in self.grams for gram in word_grams(text)):
            return "8-gram of an STS-B or SciFact test text"
        return None

    def clean(self, pairs: Iterable[Pair], dropped: Counter[str]) -> Iterator[Pair]:
        """Yield pairs that touch no benchmark; touched negatives go, touched sides end the pair."""
        for pair in pairs:
            overlap = self.find_overlap(pair.query) or self.find_overlap(pair.positive)
            if overlap:
                dropped[overlap] += 1
                continue
            kept = tuple(text for text in pair.negatives if not self.find_overlap(text))
            dropped["negative (the pair was kept)"] += len(pair.negatives) - len(kept)
            yield Pair(pair.query, pair.positive, kept)


def read_benchmarks(shared: Path) -> Benchmarks:
    """Texts of every STS file, BEIR folder, and labelled set under ``shared``.

    Raises:
        SourceNotFoundError: ``sts/`` or ``beir/`` is not there: nothing is built unchecked.
    """
    if not (shared / "sts").is_dir() or not (shared / "beir").is_dir():
        raise SourceNotFoundError(
            f"{shared} has no sts/ and beir/ folders, so training data cannot be checked against "
            "the benchmarks; pass --shared FOLDER with both"
        )
    keys = {text_key(text) for text in _sts_sentences(shared / "sts", "*.tsv")}
    for folder in sorted((shared / "beir").iterdir()):
        keys.update(text_key(text) for text in _beir_texts(folder))
    keys.update(text_key(text) for text in _labelled_texts(shared))
    scifact = _judged_queries(shared / "beir" / "scifact")
    tests = [*_sts_sentences(shared / "sts", "STSB-test.tsv"), *scifact]
    grams = frozenset(gram for text in tests for gram in word_grams(text))
    return Benchmarks(frozenset(keys - {""}), grams)


def _sts_sentences(folder: Path, pattern: str) -> Iterator[str]:
    """Both sentences of every row."""
    for path in sorted(folder.glob(pattern)):
        for _, first, second in read_table(path, STS_COLUMNS, lambda row: "").rows:
            yield from (first, second)


def _labelled_texts(shared: Path) -> Iterator[str]:
    """Texts of the classification and clustering files, where there are any."""
    for path in (*shared.glob("classification/*/*.tsv"), *shared.glob("clustering/*.tsv")):
        for row in path.read_text(encoding="utf-8").splitlines()[1:]:
            yield row.partition("\t")[2]


def _beir_texts(folder: Path) -> Iterator[str]:
    """Queries, documents, long titles, and every sentence of a document."""
    for query in read_jsonl(folder / "queries.jsonl"):
        yield str(query["text"])
    for document in read_jsonl(folder / "corpus.jsonl"):
        title, text = str(document.get("title", "")), str(document["text"])
        yield from (text, f"{title} {text}")
        yield from (
            sentence
            for sentence in split_sentences(text)
            if len(words(sentence)) >= SHORTEST_PIECE_WORDS
        )
        if len(words(title)) >= SHORTEST_TITLE_WORDS:
            yield title


def _judged_queries(folder: Path) -> Iterator[str]:
    """Texts of the queries that ``qrels/test.tsv`` judges."""
    rows = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    judged = {row.split("\t")[0] for row in rows}
    for query in read_jsonl(folder / "queries.jsonl"):
        if query["_id"] in judged:
            yield str(query["text"])


def read_jsonl(path: Path) -> Iterator[dict[str, object]]:
    """Every record of a jsonl file.

    Raises:
        SourceNotFoundError: the file is not there.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"{path} is not there; --shared names the folder with train/")
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
