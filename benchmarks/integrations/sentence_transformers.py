"""Models of sentence-transformers as encoders: the baselines that are named ``st:...``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.optional import import_optional
from retrieval import Fingerprint, Vectors
from retrieval.errors import ModelError, SourceNotFoundError
from retrieval.protocols import Notify

__all__ = ["BASELINE_PREFIX", "BaselineEncoder", "baseline_folder", "load_baseline"]

BASELINE_PREFIX = "st:"
"""Before the name of a model that sentence-transformers loads."""


class BaselineEncoder:
    """An ``Encoder`` over a SentenceTransformer: a baseline to measure our models against.

    Parameters
    ----------
    name : with its prefix, as it was typed.
    model : a ``sentence_transformers.SentenceTransformer``.
    """

    def __init__(self, name: str, model: Any) -> None:
        self._model = model
        self._fingerprint = Fingerprint(
            name,
            {
                "library": "sentence-transformers",
                "weights": _hash_weights(model),
                "max_tokens": model.max_seq_length,
                **{f"{side}_prompt": _prompt(model, side) for side in ("query", "document")},
            },
        )

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""
        return int(self._model.get_embedding_dimension())

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors: the weights, the prompts, the longest input."""
        return self._fingerprint

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1 in the order of ``texts``."""
        return self._encode(self._model.encode_query, texts)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1 in the order of ``texts``."""
        return self._encode(self._model.encode_document, texts)

    @property
    def parameters(self) -> int:
        """How many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(self._model.device)

    @property
    def dtype(self) -> str:
        """The type of its weights, such as "float32"."""
        return str(next(self._model.parameters()).dtype).removeprefix("torch.")

    def count_tokens(self, texts: Sequence[str], side: str) -> int:
        """Return how many tokens the model reads in the texts, its prompt included."""
        prompt, most = _prompt(self._model, side), self._model.max_seq_length
        rows = self._model.tokenizer([prompt + text for text in texts])["input_ids"]
        return sum(min(len(row), most) if most else len(row) for row in rows)

    def _encode(self, encode: Any, texts: Sequence[str]) -> Vectors:
        if not len(texts):
            return np.empty((0, self.dimension), dtype=np.float32)
        found = encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        vectors: Vectors = np.ascontiguousarray(found, dtype=np.float32)
        return vectors


def baseline_folder(name: str) -> Path | None:
    """Return the folder that a name with ``st:`` before it names, None for a model of the hub.

    Raises
    ------
    SourceNotFoundError : the name is a path, and there is no such folder.
    """
    place = name.removeprefix(BASELINE_PREFIX)
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if place.startswith((".", "/", "~")):
        raise SourceNotFoundError(f"{place}: there is no such folder; it was named by {name!r}.")
    return None


def load_baseline(name: str, device: str | None, notify: Notify) -> BaselineEncoder:
    """Return the model that a name with ``st:`` before it names; no code of it is run.

    Raises
    ------
    MissingDependencyError : sentence-transformers is not installed.
    SourceNotFoundError : as ``baseline_folder``.
    ModelError : sentence-transformers cannot load it.
    """
    library = import_optional("sentence_transformers", "A model named st:...")
    place, folder = name.removeprefix(BASELINE_PREFIX), baseline_folder(name)
    notify(f"Loading {place} with sentence-transformers")
    try:
        model = library.SentenceTransformer(
            str(folder or place), device=device, trust_remote_code=False
        )
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"sentence-transformers cannot load {place!r}: {reason} Name a folder that it saved, "
            f"or OWNER/NAME on the hub."
        ) from error
    return BaselineEncoder(name, model)


def _prompt(model: Any, side: str) -> str:
    """Return what the model puts before a text of this side."""
    prompts: dict[str, str] = model.prompts or {}
    return prompts.get(side) or prompts.get(model.default_prompt_name or "") or ""


def _hash_weights(model: Any) -> str:
    """Return one SHA-256 over all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
