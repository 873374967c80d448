"""The identity of the encoder that made a vector, compared before two vectors are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from retrieval.errors import FingerprintError
from retrieval.types import Scalar

__all__ = ["Fingerprint", "check_fingerprints"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides the numbers in a vector.

    Two encoders with equal fingerprints give the same vectors for the same text; vectors of
    unequal fingerprints must never be compared, even where their dimension agrees.

    Attributes
    ----------
    model : the name a user would type to load this encoder again.
    settings : what decides the vectors (weights checksum, pooling, attention, prompts, ...).
        The name is not compared: the same weights under another name are the same model.
    """

    model: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings in canonical JSON, as 64 hexadecimal digits."""
        canonical = json.dumps(dict(self.settings), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: Fingerprint) -> list[str]:
        """Return one clause for each setting that differs, sorted by name."""
        names = sorted({*self.settings, *other.settings})
        pairs = [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        return [
            f"{name} {mine!r} against {theirs!r}" for name, mine, theirs in pairs if mine != theirs
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that ``from_json`` reads."""
        return {"model": self.model, "settings": dict(self.settings), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fingerprint:
        """Read what ``to_json`` wrote.

        Raises
        ------
        ValueError : a key is missing, or the digest does not belong to the settings.
        """
        if not isinstance(data.get("model"), str) or not isinstance(data.get("settings"), dict):
            raise ValueError("a fingerprint needs 'model' (string) and 'settings' (object)")
        fingerprint = cls(data["model"], data["settings"])
        if data.get("digest") != fingerprint.digest:
            raise ValueError("the fingerprint's digest does not belong to its settings")
        return fingerprint


def check_fingerprints(index: Fingerprint, query: Fingerprint, *, where: str = "") -> None:
    """Raise FingerprintError, naming both models, unless the two have the same settings."""
    if index.digest == query.digest:
        return
    place = f" {where}" if where else ""
    other = (
        f"Search with --model {index.model!r}, or index" if index.model != query.model else "Index"
    )
    raise FingerprintError(
        f"The index{place} was made with {index.model!r}, the query comes from {query.model!r}: "
        f"{'; '.join(index.differences(query))}. Their vectors cannot be compared. "
        f"{other} the corpus again."
    )
