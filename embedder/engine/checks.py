"""What goes into an encoder must be text, and what comes out must be numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Vectors

__all__ = ["check_finite", "check_texts"]


def check_texts(texts: Sequence[str]) -> None:
    """Raise UsageError unless this is a list of valid texts."""
    if isinstance(texts, str):
        raise UsageError("texts is one string; a list of strings is accepted. Put it in a list.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"text {index} is {type(text).__name__}; a string is accepted.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"text {index} holds half a surrogate pair, which is no text."
            ) from None


def check_finite(vectors: Vectors, texts: Sequence[str], model: str) -> None:
    """Raise ModelError where a vector of (N, D) holds NaN or infinity; name its text."""
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        bad = int(wrong[0])
        raise ModelError(
            f"{model} gave NaN or infinity for text {bad}: {texts[bad][:60]!r}. The weights may "
            f"be damaged, or overflow in this dtype."
        )
