"""A saved model inside sentence-transformers 6; no other part of millpond imports this.

``modules.json`` of a MODEL_DIR names ``MillpondModule``. sentence-transformers 6 loads a class
of another package only with ``trust_remote_code=True``; ``load_sentence_transformer`` needs no
such argument, since it hands over a module that is loaded already.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.batches import pad_batch
from embedder.engine.text import check_texts
from embedder.models.manifest import Manifest, read_manifest
from embedder.models.saving import move_in, save_model, storage_errors
from retrieval.errors import MissingDependencyError, UsageError

_CONFIG = "config_sentence_transformers.json"

try:
    # By name, so that types are checked the same where the optional package is not installed.
    _modules: Any = importlib.import_module("sentence_transformers.base.modules")
except ImportError as error:
    raise MissingDependencyError(
        "sentence-transformers 6 or newer",
        "Loading a model into SentenceTransformer",
        "pip install 'sentence-transformers>=6'",
    ) from error


class MillpondModule(_modules.InputModule):  # type: ignore[misc]
    """The only module of a SentenceTransformer: texts to token ids, token ids to vectors.

    The spec's own prompts reach it through SentenceTransformer's ``prompts``; vectors are cut
    and normalised as the spec says.

    Parameters
    ----------
    embedder : a trained model, its LoRA not folded in, so that ``save`` can write it back.
    manifest : what the folder that it came from says.
    """

    config_keys = ("variant", "max_seq_length")  # shown; millpond.json is what is read back

    def __init__(self, embedder: Embedder, manifest: Manifest) -> None:
        super().__init__()
        self.embedder = embedder
        self.manifest = manifest

    @property
    def variant(self) -> str:
        """Pooling and attention."""
        return f"{self.embedder.spec.pooling}+{self.embedder.spec.attention}"

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer; texts are framed by the spec, not by its own call."""
        return self.embedder.backbone.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens, prompts, BOS and EOS included."""
        return self.embedder.spec.max_tokens

    def get_embedding_dimension(self) -> int:
        """Return D, the length of every vector."""
        return self.embedder.dimension

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **settings: Any
    ) -> dict[str, Tensor]:
        """Return padded ``input_ids`` and ``attention_mask``, both (B, T) int64.

        Raises
        ------
        UsageError : an input is not a text.
        """
        check_texts(inputs)
        ids, mask = pad_batch(self.embedder.tokenize(inputs, prompt or ""), self.embedder.pad_id)
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` (B, D) float32 to the features."""
        vectors = self.embedder(features["input_ids"], features["attention_mask"])
        return {**features, "sentence_embedding": vectors}

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **settings: Any
    ) -> None:
        """Write a MODEL_DIR into a folder that sentence-transformers has made.

        Prompts that were changed in SentenceTransformer go into the spec.

        Raises
        ------
        UsageError : ``safe_serialization`` is off; weights are never pickled.
        StorageError : the disk is full or not writable.
        """
        if not safe_serialization:
            raise UsageError("safe_serialization is False; weights are written as safetensors.")
        folder = Path(output_path)
        embedder, before = self.embedder, self.embedder.spec
        with (
            storage_errors(folder),
            tempfile.TemporaryDirectory(dir=folder, prefix=".millpond-") as scratch,
        ):
            staged = Path(scratch) / "model"
            embedder.spec = replace(before, **_changed_prompts(folder))
            try:
                save_model(embedder, staged, record=self.manifest.record, base=self.manifest.base)
            finally:
                embedder.spec = before
            move_in(staged, folder, keep=[_CONFIG])

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> MillpondModule:
        """Return the module of a MODEL_DIR, or of one on the model hub, on the CPU.

        Weights are float32, as sentence-transformers does by itself, or ``dtype`` of
        ``model_kwargs``. ``model_kwargs`` of other names are refused.
        """
        wanted = dict(model_kwargs or {})
        dtype = wanted.pop("dtype", wanted.pop("torch_dtype", None))
        if wanted:
            raise UsageError(f"model_kwargs holds {sorted(wanted)}; expected dtype alone.")
        folder = cls.load_dir_path(
            model_name_or_path,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        return cls._from_folder(str(folder or model_name_or_path), _parse_dtype(dtype))

    @classmethod
    def _from_folder(cls, folder: str, dtype: torch.dtype) -> MillpondModule:
        embedder = Embedder.load_folder(folder, device="cpu", dtype=dtype, merge=False)
        return cls(embedder, read_manifest(Path(folder).expanduser()))


def load_sentence_transformer(folder: Path | str, **settings: Any) -> Any:
    """Return a MODEL_DIR as a SentenceTransformer, which gives the same vectors.

    Parameters
    ----------
    settings : of SentenceTransformer itself, such as ``device`` or ``truncate_dim``.

    Raises
    ------
    SourceNotFoundError, ModelError : as ``Embedder.load_folder``.
    """
    library: Any = importlib.import_module("sentence_transformers")
    module = MillpondModule._from_folder(str(folder), torch.float32)
    config = json.loads((Path(folder).expanduser() / _CONFIG).read_text(encoding="utf-8"))
    names = ("prompts", "default_prompt_name", "similarity_fn_name")
    saved = {name: config[name] for name in names if name in config}
    return library.SentenceTransformer(modules=[module], **{**saved, **settings})


def _changed_prompts(folder: Path) -> dict[str, Any]:
    """Return the prompts that SentenceTransformer, which writes first, has just written."""
    try:
        prompts = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["prompts"]
    except (OSError, ValueError, KeyError):
        return {}
    sides = {"query": "query_prompt", "document": "document_prompt"}
    return {side: prompts[name] for name, side in sides.items() if name in prompts}


def _parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if dtype is None or dtype == "auto":
        return torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise UsageError(f"dtype is {dtype!r}; expected float32, bfloat16 or float16.")
    return found
