"""The one place where a command gets its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cli._console import message, warn

if TYPE_CHECKING:
    from embedder import Embedder
    from retrieval import Fingerprint, Vectors

__all__ = ["DEFAULT_MODEL_NAME", "ReportingEncoder", "load_encoder", "note_untrained"]

DEFAULT_MODEL_NAME = "millpond-135m"
"""What --help shows; a test holds it equal to ``embedder.DEFAULT_MODEL``."""


def load_encoder(model: str | None, device: str | None = None) -> Embedder:
    """Return the named model, or the default one, ready to encode; says what takes long."""
    from embedder import DEFAULT_MODEL, Embedder

    return Embedder.load(model or DEFAULT_MODEL, device=device, notify=message)


def note_untrained(encoder: Embedder) -> None:
    """Say so on stderr where the model was never trained as an embedder."""
    if not encoder.trained:
        warn(f"{encoder.fingerprint.model} is untrained: expect rough results.")


class ReportingEncoder:
    """An encoder that tells how many texts are finished while a call still runs.

    Parameters
    ----------
    encoder : does the work.
    progress : called with how many more texts are finished.
    """

    def __init__(self, encoder: Embedder, progress: Callable[[int], None]) -> None:
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
