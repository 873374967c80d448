"""The options that cut documents into passages, and what counts documents on their way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import warn

if TYPE_CHECKING:
    from embedder import Embedder
    from embedder.splitting import PassageSplitter
    from retrieval import Document

__all__ = [
    "OVERLAP_SHARE",
    "OverlapOption",
    "PassagesOption",
    "Reading",
    "choose_passages",
    "load_splitter",
    "name_passages",
]

OVERLAP_SHARE = 8
"""Passages overlap by an eighth, if not told otherwise."""
TOKENS, OVERLAP = "tokens", "overlap"

PassagesOption = Annotated[
    int | None,
    typer.Option(
        "--passages",
        metavar="TOKENS",
        min=1,
        help="Cut long documents into passages of at most so many tokens; a hit shows the best.",
        show_default="whole documents, of which the model reads the beginning",
    ),
]
OverlapOption = Annotated[
    int | None,
    typer.Option(
        "--overlap",
        metavar="TOKENS",
        min=0,
        help="How many tokens a passage repeats of the one before.",
        show_default=f"an {OVERLAP_SHARE}th of --passages",
    ),
]


def choose_passages(tokens: int | None, overlap: int | None) -> dict[str, int]:
    """Return what the manifest keeps of these options; empty where documents stay whole.

    Raises
    ------
    UsageError : they do not go together, or a number is out of range.
    """
    from retrieval.errors import UsageError

    if tokens is None:
        if overlap is not None:
            raise UsageError("--overlap goes with --passages TOKENS. Leave it out, or type both.")
        return {}
    from embedder.splitting import check_passages

    shared = tokens // OVERLAP_SHARE if overlap is None else overlap
    check_passages(tokens, shared)
    return {TOKENS: tokens, OVERLAP: shared}


def load_splitter(encoder: Embedder, passages: Mapping[str, int]) -> PassageSplitter | None:
    """Return what cuts texts as stated, None where they stay whole; warns of what is cut off.

    Raises
    ------
    UsageError : the model reads fewer tokens than a passage has, or an index states passages of
        another kind.
    """
    if not passages:
        return None
    from embedder.splitting import make_splitter
    from retrieval.errors import UsageError

    if set(passages) != {TOKENS, OVERLAP}:
        raise UsageError(
            f"The index was cut into passages by {dict(passages)}, which the command line does not "
            f"know how to repeat. Change it from Python, with the function that cut it."
        )
    return make_splitter(encoder, passages[TOKENS], passages[OVERLAP])


def name_passages(passages: Mapping[str, int]) -> str:
    """Return how documents were cut, in words."""
    if set(passages) != {TOKENS, OVERLAP}:
        return str(dict(passages))
    return f"of at most {passages[TOKENS]:,} tokens, overlapping by {passages[OVERLAP]:,}"


class Reading:
    """Documents that are counted as they pass; warns where a title leaves a passage no room.

    Parameters
    ----------
    documents : what is read, once.
    encoder, passages : what the documents are cut for, and how.

    Attributes
    ----------
    count : documents so far.
    """

    def __init__(
        self, documents: Iterable[Document], encoder: Embedder, passages: Mapping[str, int]
    ) -> None:
        self.count = 0
        self._documents = documents
        self._encoder = encoder
        self._tokens = passages.get(TOKENS, 0)
        self._longest_title = -1  # an empty one is looked at too
        self._warned = not passages

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self.count += 1
            if not self._warned and len(document.title) > self._longest_title:
                self._longest_title = len(document.title)
                self._check(document)
            yield document

    def _check(self, document: Document) -> None:
        """Warn, once, where title, prompt and passage are more than the model reads."""
        from embedder.splitting import tokens_beside

        beside, longest = (
            tokens_beside(self._encoder, document.title),
            self._encoder.spec.max_tokens,
        )
        if beside + self._tokens <= longest:
            return
        self._warned = True
        what = f"the title of {document.doc_id!r}" if document.title else "the end of a text"
        room = longest - beside
        advice = f"type --passages {room} or less" if room > 0 else "the title alone fills it"
        warn(
            f"The model reads {longest} tokens. {beside} of them are taken by {what} and what the "
            f"model puts beside a text, so the end of passages of {self._tokens} tokens is not "
            f"read: {advice}, or choose a model with a larger max_tokens."
        )
