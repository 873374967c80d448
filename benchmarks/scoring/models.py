"""Loads the models that a benchmark names, with what their costs need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.scoring.bm25 import BM25_NAME
from benchmarks.scoring.optional import import_optional, read_versions
from retrieval import Encoder, Fingerprint, Vectors
from retrieval.errors import ModelError, SourceNotFoundError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from embedder import Embedder

__all__ = [
    "PeerEncoder",
    "load_peer",
    "PEER_PREFIX",
    "Load",
    "LoadedModel",
    "Notify",
    "check_model_name",
    "load_model",
    "wrap_embedder",
]

_PURPOSE = "A model named st:..."


class PeerEncoder:
    """An ``Encoder`` over a SentenceTransformer.

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


def load_peer(name: str, device: str | None, notify: Notify) -> LoadedModel:
    """Return the model that a name with ``st:`` before it names.

    Raises
    ------
    MissingDependencyError : sentence-transformers is not installed.
    SourceNotFoundError : there is no such folder.
    ModelError : sentence-transformers cannot load it.
    """
    library = import_optional("sentence_transformers", _PURPOSE)
    place = name.removeprefix(PEER_PREFIX)
    folder = Path(place).expanduser()
    if place.startswith((".", "/", "~")) and not folder.is_dir():
        raise SourceNotFoundError(f"{place}: there is no such folder; it was named by {name!r}.")
    notify(f"Loading {place} with sentence-transformers")
    try:
        model = library.SentenceTransformer(
            str(folder) if folder.is_dir() else place, device=device
        )
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"sentence-transformers cannot load {place!r}: {reason} Name a folder that it saved, "
            f"or OWNER/NAME on the hub."
        ) from error
    encoder = PeerEncoder(name, model)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return LoadedModel(
        encoder,
        encoder.count_tokens,
        {"parameters": float(sum(parameter.numel() for parameter in model.parameters()))},
        {
            "device": str(model.device),
            "dtype": dtype,
            **read_versions("sentence-transformers"),
        },
        str(model.device),
        [folder.resolve()] if folder.is_dir() else None,
    )


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


PEER_PREFIX = "st:"
"""Before the name of a model that sentence-transformers loads."""

Notify = Callable[[str], None]
"""Receives one line for the user."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to encode.

    Attributes
    ----------
    count_tokens : texts, and "query" or "document", to how many tokens the model reads in them,
        prompts included, padding not; None where that is not known.
    costs : "parameters" and "pooling_flops", those that apply.
    versions : of what computes, beside the libraries: the device and the dtype.
    device : where it computes.
    sources : the files and folders that it came from; None where a later run cannot tell from
        files alone that it is still the same.
    sharers : models over the same loaded base, whose vectors of the same texts are wanted too.
    """

    encoder: Encoder
    count_tokens: Callable[[Sequence[str], str], int] | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    sources: Sequence[Path] | None = None
    sharers: Sequence[LoadedModel] = ()


Load = Callable[[str, str | None, Notify], LoadedModel]
"""Model name, device and notify to the model; raises as ``Embedder.load``."""


def load_model(
    name: str, device: str | None, notify: Notify, *, speed: str = "exact"
) -> LoadedModel:
    """Return the named model; raises as ``Embedder.load``, and as ``load_peer``.

    ``speed`` is for the models of this project; peers compute as their libraries do.
    """
    if name.startswith(PEER_PREFIX):
        return load_peer(name, device, notify)
    from embedder import Embedder
    from embedder.engine.speed import check_speed

    embedder = Embedder.load(name, device=device, speed=check_speed(speed), notify=notify)
    return wrap_embedder(name, embedder)


def wrap_embedder(name: str, embedder: Embedder) -> LoadedModel:
    """Return an embedder with what its costs need; ``name`` is what loads it.

    It has no ``sources`` where it computes in int8: the machine and the speed decide that, not
    the model's files.
    """
    from benchmarks.scoring.costs import count_parameters, pooling_flops
    from embedder.models.provenance import model_sources

    parameter = next(embedder.parameters())
    return LoadedModel(
        embedder,
        partial(_count_tokens, embedder),
        {
            "parameters": float(count_parameters(embedder)),
            "pooling_flops": float(pooling_flops(embedder)),
        },
        {"device": str(embedder.device), "dtype": str(parameter.dtype).removeprefix("torch.")},
        str(embedder.device),
        None if embedder.is_int8 else model_sources(name, embedder),
    )


def _count_tokens(embedder: Embedder, texts: Sequence[str], side: str) -> int:
    spec = embedder.spec
    prompt = spec.query_prompt if side == "query" else spec.document_prompt
    return sum(len(row) for row in embedder.tokenize(texts, prompt))


def check_model_name(name: str) -> None:
    """Refuse a name that cannot be loaded, without loading anything.

    Raises
    ------
    UnknownNameError, UsageError : no such variant, option or base.
    ModelError : a model folder's millpond.json is damaged.
    """
    from embedder.models.bases import BASES
    from embedder.models.manifest import read_manifest
    from embedder.models.names import DEFAULT_VARIANT, find_saved_model, list_builtin_models
    from embedder.variants import parse_model_name

    if name.startswith(PEER_PREFIX):
        return
    saved = find_saved_model(name)
    if saved is not None:
        read_manifest(saved.folder)
        return
    base = parse_model_name(name, DEFAULT_VARIANT).base
    if base in BASES or (base.count("/") == 1 and not base.startswith((".", "/", "~"))):
        return
    path = Path(base).expanduser()
    if not path.exists():
        raise UnknownNameError(
            "model",
            name,
            [*(trained.name for trained in list_builtin_models()), *BASES, BM25_NAME],
            "Or a model folder, a .gguf file, or OWNER/NAME.",
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise UsageError(
            f"The model {name!r} is a folder without millpond.json and config.json; a model "
            f"folder is accepted."
        )
