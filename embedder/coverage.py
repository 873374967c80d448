"""How much of some texts a model reads, and whether they had better be cut into passages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from embedder.embedder import Embedder
from embedder.models.sentence_transformers.encoder import SentenceTransformersEncoder
from embedder.splitting import CHARACTERS_PER_TOKEN, make_splitter, tokens_beside, tokens_read
from retrieval.corpus import Corpus
from retrieval.types import Document

__all__ = ["PASSAGE_TOKENS", "CUT_SHARE", "CountedDocuments", "Coverage"]

PASSAGE_TOKENS = 90
"""Measured on this project's pages; see benchmarks/lab/LOG.md."""
CUT_SHARE = 0.1
"""With a larger share of documents cut, passages are the default."""


@dataclass
class Coverage:
    """Counts texts, and the tokens of them that the model does not read.

    A text that is many times as long as what is read is counted from its beginning.

    Attributes
    ----------
    texts, cut : how many texts there were, and how many of them the model reads in part.
    tokens, unread : of all texts, without prompts; some estimated.
    """

    texts: int = 0
    cut: int = 0
    tokens: int = 0
    unread: int = 0

    def __init__(self, encoder: Embedder | SentenceTransformersEncoder) -> None:
        self.texts = self.cut = self.tokens = self.unread = 0
        self._room = max(1, tokens_read(encoder) - tokens_beside(encoder))
        self._count = make_splitter(encoder, self._room, 0).count

    def add(self, text: str) -> None:
        """Count a text, as it is embedded."""
        start = text[: 2 * CHARACTERS_PER_TOKEN * self._room]
        tokens = self._count(start)
        if len(start) < len(text):
            tokens = round(tokens * len(text) / len(start))
        self.texts += 1
        self.tokens += tokens
        if tokens > self._room:
            self.cut += 1
            self.unread += tokens - self._room

    def passing(self, rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield ids and texts as they come, and count the texts."""
        for row in rows:
            self.add(row[1])
            yield row

    def add_all(self, documents: Iterable[Document]) -> Coverage:
        """Count documents, each with its title; return this object."""
        for document in documents:
            self.add(document.content)
        return self

    @property
    def unread_share(self) -> float:
        """The share of all tokens that is not read, 0 to 1."""
        return self.unread / self.tokens if self.tokens else 0.0

    @property
    def passage_tokens(self) -> int:
        """The length of passages for this model: 90 tokens, or fewer if it reads fewer."""
        return min(PASSAGE_TOKENS, self._room)

    @property
    def wants_passages(self) -> bool:
        """Whether more than a tenth of the texts are cut."""
        return self.cut > CUT_SHARE * self.texts

    def to_json(self) -> dict[str, int]:
        """Return the counts, as the manifest of an index keeps them."""
        return {name: getattr(self, name) for name in ("texts", "cut", "tokens", "unread")}


class CountedDocuments:
    """A corpus whose documents are counted as they are read; an index keeps the counts."""

    def __init__(self, documents: Corpus, encoder: Embedder | SentenceTransformersEncoder) -> None:
        self._documents = documents
        self._coverage = Coverage(encoder)

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self._coverage.add(document.content)
            yield document

    @property
    def name(self) -> str:
        """The name of the corpus."""
        return self._documents.name

    @property
    def cut(self) -> dict[str, int]:
        """The counts so far; see ``Manifest.cut``."""
        return self._coverage.to_json()
