"""What runs in each worker process: one encoder, built there and compared with the driver's."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from retrieval import Encoder, Fingerprint, Vectors

__all__ = ["EncoderFactory", "Refusal", "Worker"]

EncoderFactory = Callable[[], Encoder]
"""Makes the encoder in the worker; picklable, such as ``partial(Embedder.load, "NAME")``."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a worker gives no vectors; an answer, not an exception, so nothing of it is lost.

    Attributes
    ----------
    kind : the encoder is another one, cannot be built, or cannot encode a text.
    reason : a clause without a full stop.
    host : the worker's machine.
    trace : where it happened, for who reads a traceback.
    row : the text that cannot be encoded, if it is one alone.
    """

    kind: Literal["fingerprint", "factory", "text"]
    reason: str
    host: str
    trace: str = ""
    row: int | None = None


class Worker:
    """Encodes chunks; Ray makes one in each worker process, and again after a death.

    Parameters
    ----------
    factory : makes the encoder.
    expected : the driver's fingerprint; with any other, every request is refused.
    """

    def __init__(self, factory: EncoderFactory, expected: Fingerprint) -> None:
        self._encoder: Encoder | None = None
        self._refusal: Refusal | None = None
        try:
            encoder = factory()
            found = encoder.fingerprint
        except Exception as error:
            self._refusal = _refuse("factory", error)
            return
        if found.digest == expected.digest:
            self._encoder = encoder
        else:
            changed = "; ".join(expected.differences(found)) or "a setting is missing on one side"
            self._refusal = Refusal("fingerprint", changed, socket.gethostname())

    def introduce(self) -> Refusal | None:
        """Return None once the encoder is there and is the driver's, or why it is not."""
        return self._refusal

    def encode(self, texts: Sequence[str]) -> Vectors | Refusal:
        """Return what the encoder returns, float32 (N, D) if it is sound, or why it cannot."""
        if self._encoder is None:
            assert self._refusal is not None
            return self._refusal
        try:
            return self._encoder.encode_documents(texts)
        except Exception as error:
            return self._blame(self._encoder, texts, error)

    def _blame(self, encoder: Encoder, texts: Sequence[str], error: Exception) -> Refusal:
        """Halve the texts until one is left that fails alone; no row if none does."""
        start, stop = 0, len(texts)
        while stop - start > 1:
            middle = (start + stop) // 2
            for half in ((start, middle), (middle, stop)):
                try:
                    encoder.encode_documents(texts[slice(*half)])
                except Exception as narrower:
                    error, (start, stop) = narrower, half
                    break
            else:
                return _refuse("text", error)
        return _refuse("text", error, start)


def _refuse(kind: Literal["factory", "text"], error: Exception, row: int | None = None) -> Refusal:
    detail = f": {error}" if str(error) else ""
    reason = f"{type(error).__name__}{detail}".rstrip(".")
    trace = "".join(traceback.format_exception(error))
    return Refusal(kind, reason, socket.gethostname(), trace, row)
