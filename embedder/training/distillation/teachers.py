"""The teacher of a run: its vectors of any texts, stored or computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from embedder.loading import LoadedEncoder, load_encoder
from embedder.models.names import PREFIX
from embedder.training.distillation.options import TeacherConfig, short_name
from embedder.training.distillation.stored import StoredVectors, digests_of
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify, Rows, Vectors
from retrieval.scores import unit_rows
from retrieval.types import Fingerprint

__all__ = ["Teacher", "TeacherText", "encode_side", "encode_sides", "load_teacher"]

TeacherText = tuple[bool, str]
"""Whether a text is a query, and the text."""

_ROLES = {True: "query", False: "document"}
_SHOWN = 60
_LOOKED_UP = 4_096


class Teacher:
    """Gives the vectors of any texts, at length 1.

    Parameters
    ----------
    encoder : computes what is not stored; None where everything is.
    stored : vectors that were made before.

    Attributes
    ----------
    width : W.
    fingerprint : what decides its vectors.
    """

    def __init__(
        self, encoder: LoadedEncoder | None, stored: StoredVectors | None, name: str
    ) -> None:
        self.encoder, self.stored, self.name = encoder, stored, name
        self.computed = 0
        known = stored or encoder
        assert known is not None  # TeacherConfig sees to it
        self.fingerprint: Fingerprint = known.fingerprint
        self.width = stored.width if stored else int(encoder.dimension) if encoder else 0
        settings = self.fingerprint.settings
        self.query_prompt = str(settings.get("query_prompt") or "")
        self.document_prompt = str(settings.get("document_prompt") or "")

    def embed(self, texts: Sequence[TeacherText]) -> Vectors:
        """Return (N, W) float32 of length 1, a row a text.

        Raises
        ------
        UsageError : a text has no stored vector, and there is no model.
        """
        return unit_rows(self.embed_raw(texts))

    def embed_raw(self, texts: Sequence[TeacherText]) -> Vectors:
        """Return (N, W) float32 as ``embed``, at the lengths that the model gives."""
        return encode_sides(self._embed_side, texts, self.width)

    def count_missing(self, texts: Iterable[TeacherText]) -> tuple[int, str]:
        """Return how many texts have no stored vector, and the first of them."""
        missing, first = 0, ""
        stream = iter(texts)
        while chunk := list(islice(stream, _LOOKED_UP)):
            for is_query in (True, False):
                side = [text for asked, text in chunk if asked is is_query]
                lost: Rows = np.flatnonzero(self._find(is_query, side) < 0)
                missing += len(lost)
                if len(lost) and not first:
                    first = side[int(lost[0])]
        return missing, first

    def record(self) -> dict[str, Any]:
        """Return what identifies the teacher, for the record of the run."""
        return {
            "model": short_name(self.name),
            "sha256": self.fingerprint.digest,
            "width": self.width,
            "stored_vectors": len(self.stored) if self.stored else 0,
        }

    def _find(self, is_query: bool, texts: Sequence[str]) -> Rows:
        if self.stored is None or not texts:
            return np.full(len(texts), -1, dtype=np.int64)
        digests = digests_of(texts)
        rows = self.stored.find(digests, _ROLES[is_query])
        if self.query_prompt == self.document_prompt:  # then the role makes no difference
            other = self.stored.find(digests, _ROLES[not is_query])
            rows = np.where(rows < 0, other, rows)
        return rows

    def _embed_side(self, is_query: bool, texts: Sequence[str]) -> Vectors:
        rows = self._find(is_query, texts)
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        stored, missing = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        if len(stored) and self.stored is not None:
            vectors[stored] = self.stored.take(rows[stored])
        if len(missing):
            if self.encoder is None:
                first = texts[int(missing[0])][:_SHOWN]
                raise UsageError(f"The teacher has no vector of {first!r}.")
            vectors[missing] = encode_side(self.encoder, is_query, [texts[i] for i in missing])
            self.computed += len(missing)
        return vectors


def encode_side(encoder: LoadedEncoder, is_query: bool, texts: Sequence[str]) -> Vectors:
    """Return (N, D) float32 of texts, queries with the query prompt."""
    return encoder.encode_queries(texts) if is_query else encoder.encode_documents(texts)


def encode_sides(
    encode: Callable[[bool, list[str]], Vectors], texts: Sequence[TeacherText], width: int
) -> Vectors:
    """Return (N, width) float32 of texts, by one call for queries and one for documents."""
    vectors = np.empty((len(texts), width), dtype=np.float32)
    for is_query in (True, False):
        places = [i for i, (asked, _) in enumerate(texts) if asked is is_query]
        if places:
            vectors[places] = encode(is_query, [texts[i][1] for i in places])
    return vectors


def load_teacher(config: TeacherConfig, device: str, notify: Notify) -> Teacher:
    """Return the teacher that a config names.

    Raises
    ------
    UsageError : the stored vectors are of another model than ``config.model``.
    ModelError, SourceNotFoundError, UnknownNameError, DownloadError, StorageError : it cannot be
        loaded; a folder without safetensors, or one that needs code of its own, is refused.
    """
    stored = None if config.vectors is None else StoredVectors(config.vectors)
    encoder = None
    if config.model is not None:
        _refuse_pickles(config.model)
        encoder = load_encoder(
            config.model, device, notify=notify, trust_remote_code=config.trust_remote_code
        )
    if stored is not None and encoder is not None:
        differing = stored.fingerprint.differences(encoder.fingerprint)
        if differing:
            raise UsageError(
                f"teacher.vectors ({config.vectors}) are not of teacher.model ({config.model}): "
                f"{'; '.join(differing)}. Embed the texts again with this model."
            )
    name = config.model or (stored.fingerprint.model if stored else "")
    return Teacher(encoder, stored, name)


def _refuse_pickles(model: str) -> None:
    """Raise ModelError for a folder whose weights are pickles, which can run code."""
    folder = Path(model.removeprefix(PREFIX))
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for kind in ("*.bin", "*.pt") for path in folder.glob(kind))
    if pickles:
        raise ModelError(
            f"{folder}: its weights are in {pickles[0]}, a pickle, which can run code and is not "
            f"read; expected .safetensors files. Save the model again with safetensors, or give "
            f"vectors that it made."
        )
