"""Generated documents, and encoders that cost next to nothing, for the indexing benchmarks.

An encoder as slow as a model would hide what indexing costs. Both of these need microseconds per
text and no memory that grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from retrieval import Document, Fingerprint, Scalar, Vectors

TABLE_ROWS = 4096
VOCABULARY = 20_000
POOL_WORDS = 100_000
TITLE_CHARACTERS = 40
LANGUAGES = ("de", "en", "fr", "ja", "pt")


@dataclass(frozen=True)
class _Texts:
    """Running text of invented words, the frequent ones as frequent as in English."""

    pool: str = field(default_factory=lambda: _make_pool())

    def cut(self, number: int, characters: int) -> str:
        """Return a text of this length; other numbers give other texts."""
        start = number * 7919 % (len(self.pool) - characters)
        return self.pool[start : start + characters]


def _make_pool() -> str:
    """Return the words of ``POOL_WORDS`` draws by Zipf's law, one blank apart."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = random.integers(2, 10, VOCABULARY)
    words = ["".join(letters[random.integers(0, 26, length)]) for length in lengths]
    odds = 1 / np.arange(1, VOCABULARY + 1)
    return " ".join(words[n] for n in random.choice(VOCABULARY, POOL_WORDS, p=odds / odds.sum()))


def make_documents(
    count: int, characters: int = 200, *, with_metadata: bool = True
) -> Iterator[Document]:
    """Yield documents with an id, a title, so many characters of text and two fields or none.

    A document's number is in its text, so that no two are alike. Nothing is kept.
    """
    texts = _Texts()
    for number in range(count):
        metadata: dict[str, Scalar] = {}
        if with_metadata:
            metadata = {"year": 1950 + number % 75, "lang": LANGUAGES[number % len(LANGUAGES)]}
        text = f"{number} {texts.cut(number, characters)}"[:characters]
        yield Document(f"doc{number:09d}", text, texts.cut(number + 1, TITLE_CHARACTERS), metadata)


class TextHashEncoder:
    """A vector is the sum of two rows of a fixed random table, chosen by a checksum of the text.

    About the least that a function from texts to unit vectors can cost.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        settings: dict[str, Scalar] = {"model": "text-hash", "normalize": True}
        settings["dimension"] = dimension
        self.fingerprint = Fingerprint("text-hash", settings)
        random = np.random.default_rng(0)
        self._table = random.standard_normal((TABLE_ROWS, dimension), dtype=np.float32)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1."""
        hashes = np.fromiter((crc32(text.encode()) for text in texts), np.int64, len(texts))
        vectors = self._table[hashes % TABLE_ROWS]
        vectors += self._table[hashes // TABLE_ROWS % TABLE_ROWS]
        return _normalize(vectors)

    encode_queries = encode_documents


class WordHashEncoder:
    """Hashed bags of words (arXiv 0902.2206): every word adds 1 or -1 to one place of the vector.

    The cheapest encoder that reads what it embeds; texts that share words are near.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.fingerprint = Fingerprint("word-hash", {"model": "word-hash", "dimension": dimension})

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1; zeros for a text without words."""
        words = [text.encode().split() for text in texts]
        counts = np.fromiter(map(len, words), np.int64, len(words))
        total = int(counts.sum())
        hashes = np.fromiter((crc32(word) for some in words for word in some), np.int64, total)
        places = np.repeat(np.arange(len(words)) * self.dimension, counts)
        places += (hashes >> 1) % self.dimension
        size = len(words) * self.dimension
        sums = np.bincount(places, weights=(hashes & 1) * 2.0 - 1, minlength=size)
        return _normalize(sums.astype(np.float32).reshape(len(words), self.dimension))

    encode_queries = encode_documents


ENCODERS: dict[str, type[TextHashEncoder] | type[WordHashEncoder]] = {
    "words": WordHashEncoder,
    "text": TextHashEncoder,
}


def _normalize(vectors: Vectors) -> Vectors:
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    vectors /= np.maximum(lengths, np.float32(1e-12))[:, np.newaxis]
    return vectors
