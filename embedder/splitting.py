"""How much of texts a model reads; and cutting long ones into passages, where a reader would."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from embedder.loading import LoadedEncoder
from embedder.models.sentence_transformers.encoder import SentenceTransformersEncoder
from retrieval.corpus import Corpus
from retrieval.errors import UsageError
from retrieval.types import Document

PASSAGE_TOKENS = 90
"""Measured on this project's pages; see benchmarks/lab/LOG.md."""
CUT_SHARE = 0.1
"""With a larger share of documents cut, passages are the default."""

CLOSING = r"""["')\]\u2019\u201d\u00bb]*"""
WIDE_CLOSING = r"[\u2019\u201d\u300d\u300f\uff09]*"
SENTENCE_END = re.compile(
    rf"[.!?\u2026]+{CLOSING}(?=\s)|[\u3002\uff01\uff1f]+{WIDE_CLOSING}|\S(?=\n)"
)
"""Stops before a blank, those of Chinese and Japanese anywhere, quotes and brackets after them,
and the end of a line."""
PARAGRAPH_END = re.compile(r"\S(?=[^\S\n]*\n[^\S\n]*\n)")
BLANK = re.compile(r"(?<=\S)(?=\s)")
ENDS = ((PARAGRAPH_END, 2), (SENTENCE_END, 3), (BLANK, 5))
"""Where a passage may end early, and within which of its shares: a paragraph within its last half,
a sentence within its last third, a word within its last fifth. The first that is found counts."""
CHARACTERS_PER_TOKEN = 8
"""Text tokenised at first to find the end of a passage, per token of it; twice the usual."""
JOINER = "\u200d"


class PassageSplitter:
    """Cuts a text into passages of at most ``tokens`` tokens; is a ``Splitter``.

    A passage begins ``overlap`` tokens before the last one ended, or a little later, at the next
    blank. It ends after a paragraph if one ends in its last half, else after a sentence in its last
    third, else before a blank in its last fifth, and never between a letter and its accents or
    within joined emoji. Reads a text of any length in memory that
    depends on ``tokens`` alone.

    Parameters
    ----------
    tokenizer : a fast transformers tokenizer, or one of tokenizers; a copy is used.
    tokens : counted as the tokenizer counts the passage by itself, without special tokens. A
        single character that takes more is a passage of its own.
    overlap : 0 to half of ``tokens``.

    Raises
    ------
    UsageError : a number is out of range.
    """

    def __init__(self, tokenizer: Any, tokens: int, overlap: int = 0) -> None:
        check_passages(tokens, overlap)
        self.tokens = tokens
        self.overlap = overlap
        # A copy, since others change settings of theirs, and tokenise in threads.
        self._backend = copy.deepcopy(getattr(tokenizer, "backend_tokenizer", tokenizer))
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True

    def __call__(self, text: str) -> list[str]:
        """Return the passages in order; a short or empty text is one passage."""
        return [text[start:stop] for start, stop in self.spans(text)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each passage starts and stops, in characters.

        Starts and stops rise, no start lies beyond the stop before it, and the last stop is the
        end of the text: ``text[stop before:stop]`` of all passages together are the text.
        """
        spans: list[tuple[int, int]] = []
        start = done = 0
        while True:
            stop = self._furthest(text, start)
            if stop <= done < len(text) and start < done:
                start = done  # what is repeated leaves no room for anything new
                continue
            if stop < len(text):
                stop = self._settle(text, start, max(start, done), stop)
            spans.append((start, stop))
            if stop == len(text):
                return spans
            done = stop
            start = self._next_start(text, start, stop)

    def count(self, text: str) -> int:
        """Return the number of tokens of a text by itself."""
        return len(self._offsets(text))

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Return start and stop of each token, in characters; tokens may share a character."""
        found = self._backend.encode(text, add_special_tokens=False)
        offsets: list[tuple[int, int]] = found.offsets
        return offsets

    def _furthest(self, text: str, start: int) -> int:
        """Return the furthest place where a passage from ``start`` can stop."""
        size = CHARACTERS_PER_TOKEN * self.tokens
        offsets = self._offsets(text[start : start + size])
        while len(offsets) <= self.tokens:
            if start + size >= len(text):
                return len(text)
            size *= 2
            offsets = self._offsets(text[start : start + size])
        kept = self.tokens
        while True:
            room = _boundary(offsets, kept)
            if room < 1:
                return start + 1
            found = self._offsets(text[start : start + room])
            if len(found) <= self.tokens:
                return start + room
            # By itself the piece takes more tokens than it did as the beginning of the rest.
            kept -= len(found) - self.tokens

    def _settle(self, text: str, start: int, least: int, stop: int) -> int:
        """Return where a reader would end the passage, beyond ``least`` and not beyond ``stop``."""
        for pattern, share in ENDS:
            early = max(least, stop - (stop - start) // share)
            ends = [found.end() for found in pattern.finditer(text, early, stop + 1)]
            place = max((end for end in ends if early < end <= stop), default=None)
            if place is not None and self.count(text[start:place]) <= self.tokens:
                return place
        return _before_character(text, least, stop)

    def _next_start(self, text: str, start: int, stop: int) -> int:
        """Return where the next passage starts: ``overlap`` tokens before the end, or later."""
        if not self.overlap:
            return stop
        offsets = self._offsets(text[start:stop])
        place = start + _boundary(offsets, max(1, len(offsets) - self.overlap))
        place = _before_character(text, start, place)
        if place <= start:
            return stop
        if not text[place - 1].isspace() and not text[place].isspace():
            blank = BLANK.search(text, place, stop)
            place = blank.start() if blank is not None else place
        return place


def check_passages(tokens: int, overlap: int) -> None:
    """Raise UsageError unless passages of this length can overlap by this much."""
    if tokens < 1:
        raise UsageError(f"Passages of {tokens} tokens were asked for; expected 1 or more.")
    if not 0 <= overlap <= tokens // 2:
        raise UsageError(
            f"Passages of {tokens} tokens were to overlap by {overlap}; expected 0 to "
            f"{tokens // 2}, half of a passage."
        )


def make_splitter(encoder: LoadedEncoder, tokens: int, overlap: int) -> PassageSplitter:
    """Return a splitter that counts the tokens of this model.

    Raises
    ------
    UsageError : a number is out of range, or the model reads fewer tokens than a passage has.
    """
    longest = tokens_read(encoder)
    if tokens > longest:
        raise UsageError(
            f"Passages of {tokens} tokens were asked for, but the model reads {longest} per text. "
            f"Type {longest - tokens_beside(encoder)} or less, or a model with "
            f"max_tokens={tokens} or more."
        )
    if isinstance(encoder, SentenceTransformersEncoder):
        return PassageSplitter(encoder.tokenizer, tokens, overlap)
    return PassageSplitter(encoder.backbone.tokenizer, tokens, overlap)


def tokens_read(encoder: LoadedEncoder) -> int:
    """Return how many tokens of a text the model reads, its prompt and special tokens included."""
    if isinstance(encoder, SentenceTransformersEncoder):
        return encoder.max_tokens
    return encoder.spec.max_tokens


def tokens_beside(encoder: LoadedEncoder, title: str = "") -> int:
    """Return how many of those a document's title, its prompt and special tokens take."""
    content = f"{title} x" if title else "x"
    if isinstance(encoder, SentenceTransformersEncoder):
        (count,), _ = encoder.count_tokens([content], "document")
        return count - 1
    return len(encoder.tokenize([content], encoder.spec.document_prompt)[0]) - 1


class Coverage:
    """Counts texts, and the tokens of them that the model does not read.

    A text that is many times as long as what is read is counted from its beginning.

    Attributes
    ----------
    texts, cut : how many texts there were, and how many of them the model reads in part.
    tokens, unread : of all texts, without prompts; some estimated.
    """

    def __init__(self, encoder: LoadedEncoder) -> None:
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

    def __init__(self, documents: Corpus, encoder: LoadedEncoder) -> None:
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


def _boundary(offsets: list[tuple[int, int]], count: int) -> int:
    """Return where the first ``count`` tokens end, before any character that later ones share."""
    if count < 1:
        return 0
    return min(offsets[count - 1][1], offsets[count][0]) if count < len(offsets) else offsets[-1][1]


def _before_character(text: str, least: int, place: int) -> int:
    """Return the place, or an earlier one beyond ``least`` where it would divide a character."""
    found = place
    while least < found < len(text) and _continues(text, found):
        found -= 1
    return found if found > least else place


def _continues(text: str, place: int) -> bool:
    """Whether the character at a place belongs to the one before: accents, joined emoji."""
    joined = JOINER in (text[place], text[place - 1])
    modifies = "\U0001f3fb" <= text[place] <= "\U0001f3ff"
    return joined or modifies or unicodedata.category(text[place]).startswith("M")
