"""Loads the models that a benchmark names, with what their costs need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.optional import read_versions
from benchmarks.scoring.bm25 import BM25_NAME, bm25_fingerprint
from embedder.models.names import PREFIX
from embedder.models.sentence_transformers import find_folder
from retrieval import Encoder, Fingerprint
from retrieval.errors import UnknownNameError, UsageError
from retrieval.protocols import Notify
from retrieval.types import Blend, Scalar

if TYPE_CHECKING:
    from embedder import Embedder
    from embedder.models.sentence_transformers import Reranker, SentenceTransformersEncoder

_LIBRARIES = ("torch", "transformers")


@dataclass(frozen=True)
class Bm25Model:
    """BM25 where a loaded model is expected; nothing of it is loaded.

    Attributes
    ----------
    costs, versions, device : as of ``LoadedModel``.
    """

    costs: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(
        default_factory=partial(read_versions, "tantivy", "PyStemmer")
    )
    device: str = "cpu"

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the scores."""
        return bm25_fingerprint()


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to encode.

    Attributes
    ----------
    count_tokens : texts, and "query" or "document", to how many tokens the model reads in them,
        prompts included, padding not; None where that is not known.
    costs : "parameters" and "pooling_flops", those that apply.
    versions : of the libraries that compute, and the device and the dtype.
    device : where it computes.
    sources : the files and folders that it came from; None where a later run cannot tell from
        files alone that it is still the same.
    sharers : models over the same loaded base, whose vectors of the same texts are wanted too.
    blend : how the vectors and the words of an index answer together; None for vectors alone.
    reranker : reads the hits again.
    """

    encoder: Encoder
    count_tokens: Callable[[Sequence[str], str], int] | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    sources: Sequence[Path] | None = None
    sharers: Sequence[LoadedModel] = ()
    blend: Blend | None = None
    reranker: Reranker | None = None

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the scores: the vectors, and how they are searched."""
        made = self.encoder.fingerprint
        settings: dict[str, Scalar] = dict(made.settings)
        if self.blend is not None:
            settings |= {"fusion": self.blend.fusion, "weight": self.blend.weight}
            settings["lexical_arm"] = bm25_fingerprint().digest
        if self.reranker is not None:
            settings["reranker"] = self.reranker.fingerprint.digest
        return Fingerprint(made.model, settings)


Load = Callable[[str, str | None, Notify], LoadedModel]
"""Model name, device and notify to the model; raises as ``embedder.load_encoder``."""


def load_model(
    name: str,
    device: str | None,
    notify: Notify,
    *,
    speed: str = "exact",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Return the named model; arguments and errors as ``embedder.load_encoder``."""
    from embedder.embedder import Embedder
    from embedder.loading import load_encoder

    encoder = load_encoder(name, device, speed, notify, trust_remote_code=trust_remote_code)
    if isinstance(encoder, Embedder):
        return wrap_embedder(name, encoder)
    return _wrap_library(name, encoder)


def instruct_model(loaded: LoadedModel, name: str, prompt: str) -> LoadedModel:
    """Return a loaded model with another query prompt; ``name`` is what loads it without."""
    from embedder.embedder import Embedder
    from embedder.models.names import write_value
    from embedder.models.sentence_transformers import SentenceTransformersEncoder

    encoder = loaded.encoder
    assert isinstance(encoder, Embedder | SentenceTransformersEncoder)
    other = encoder.with_query_prompt(prompt, f"{name},query_prompt={write_value(prompt)}")
    return wrap_embedder(name, other) if isinstance(other, Embedder) else _wrap_library(name, other)


def _wrap_library(name: str, encoder: SentenceTransformersEncoder) -> LoadedModel:
    """Return a model of sentence-transformers with what its costs need."""
    folder = find_folder(name)
    return LoadedModel(
        encoder,
        lambda texts, side: sum(encoder.count_tokens(texts, side)[0]),
        {"parameters": float(encoder.parameters)},
        {
            "device": encoder.device,
            "dtype": encoder.dtype,
            **read_versions("sentence-transformers", *_LIBRARIES),
        },
        encoder.device,
        None if folder is None else [folder],
    )


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
        {
            "device": str(embedder.device),
            "dtype": str(parameter.dtype).removeprefix("torch."),
            **read_versions(*_LIBRARIES),
        },
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
    SourceNotFoundError : the folder of a model of sentence-transformers is not there.
    ModelError : a model folder's millpond.json is damaged.
    """
    from embedder.models.bases import BASES
    from embedder.models.manifest import read_manifest
    from embedder.models.names import (
        DEFAULT_VARIANT,
        find_path,
        find_saved_model,
        is_folder,
        is_hub_id,
        list_builtin_models,
        split_name,
    )
    from embedder.variants import parse_model_name

    if name.startswith(PREFIX):
        find_folder(name)
        return
    saved = find_saved_model(name)
    if saved is not None:
        read_manifest(saved.folder)
        return
    plain = name if is_folder(name) else split_name(name)[0]
    base = parse_model_name(plain, DEFAULT_VARIANT).base
    if base in BASES or is_hub_id(base):
        return
    path = find_path(base)
    if path is None:
        raise UnknownNameError(
            "model",
            name,
            [*(trained.name for trained in list_builtin_models()), *BASES, BM25_NAME],
            "Or a model folder, a .gguf file, or OWNER/NAME.",
        )
    files = ("config.json", "modules.json")
    if path.is_dir() and not any((path / file).is_file() for file in files):
        raise UsageError(
            f"The model {name!r} is a folder without millpond.json, config.json and modules.json; "
            f"expected a model folder."
        )
