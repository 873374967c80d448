"""The encoder of a command, and what is told of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from cli.console import message, warn
from cli.options import OVERLAP, TOKENS
from embedder.models.names import DEFAULT_MODEL
from retrieval.errors import UsageError
from retrieval.plurals import count_noun

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from embedder.splitting import PassageSplitter
    from retrieval import Corpus, Encoder, Fingerprint, Vectors

__all__ = [
    "ReportingEncoder",
    "instruct",
    "load_encoder",
    "load_splitter",
    "name_passages",
    "note_untrained",
    "say_once",
    "warn_skipped",
]

USUAL_TOKENS = 512
"""What a base reads of a text unless its name says so; a test holds it equal to the spec's."""


def load_encoder(
    model: str | None,
    device: str | None = None,
    speed: str = "exact",
    notify: Callable[[str], None] = message,
    *,
    trust_remote_code: bool = False,
) -> LoadedEncoder:
    """Return the named model, or the default one, ready to encode."""
    if sys.stderr.isatty():  # where somebody waits for the imports, which take seconds
        message(f"Loading {model or DEFAULT_MODEL} ...")
    from embedder.loading import load_encoder

    return load_encoder(model, device, speed, notify, trust_remote_code=trust_remote_code)


def instruct(
    model: str | None, instruction: str | None, notify: Callable[[str], None] = message
) -> str | None:
    """Return the model's name, with the query prompt of the instruction if there is one."""
    if instruction is None:
        return model
    from embedder.instructions import add_instruction

    return add_instruction(model or DEFAULT_MODEL, instruction, notify)


def say_once() -> Callable[[str], None]:
    """Return a function that prints each line to stderr once; for several models."""
    return cache(message)


def note_untrained(encoder: Encoder) -> None:
    """Warn of a model that was never trained as an embedder, and of its usual limit."""
    if getattr(encoder, "trained", True):
        return
    reads, could = encoder.fingerprint.settings.get("max_tokens"), getattr(encoder, "positions", 0)
    limit = ""
    if reads == USUAL_TOKENS and could and could > USUAL_TOKENS:
        limit = (
            f" It reads {USUAL_TOKENS} tokens of a text, of the {could:,} that its base can; "
            f"another limit is max_tokens=N."
        )
    warn(f"{encoder.fingerprint.model} is untrained: expect rough results.{limit}")


def warn_skipped(source: Corpus) -> None:
    """Warn of the bad records that were skipped, if any."""
    if source.skipped:
        count = count_noun(source.skipped, "bad record was", "bad records were")
        warn(f"{count} skipped. The first: {source.first_skipped[0]}")


class ReportingEncoder:
    """An encoder that reports finished texts while a call still runs.

    Parameters
    ----------
    encoder : does the work.
    progress : called with the number of texts just finished.
    """

    def __init__(self, encoder: LoadedEncoder, progress: Callable[[int], None]) -> None:
        self._encoder = encoder
        self._progress = progress

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""
        return self._encoder.dimension

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors."""
        return self._encoder.fingerprint

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        return self._encoder.encode_queries(texts, progress=self._progress)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        return self._encoder.encode_documents(texts, progress=self._progress)


def load_splitter(encoder: LoadedEncoder, passages: Mapping[str, int]) -> PassageSplitter | None:
    """Return the splitter that ``passages`` describes, None if documents stay whole.

    Raises
    ------
    UsageError : the model reads fewer tokens than a passage has, or an index states passages of
        another kind.
    """
    if not passages:
        return None
    from embedder.splitting import make_splitter

    if set(passages) != {TOKENS, OVERLAP}:
        raise UsageError(
            f"The index was split into passages by {dict(passages)}, which the command line cannot "
            f"repeat. Change it from Python, with the function that split it."
        )
    return make_splitter(encoder, passages[TOKENS], passages[OVERLAP])


def name_passages(passages: Mapping[str, int]) -> str:
    """Return how documents were split, in words."""
    if set(passages) != {TOKENS, OVERLAP}:
        return str(dict(passages))
    return f"of at most {passages[TOKENS]:,} tokens, overlapping by {passages[OVERLAP]:,}"
