"""Writes a trained model as a MODEL_DIR, which appears whole or not at all.

See ``embedder.models.manifest`` for the layout. Weights are safetensors; nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.backbone import Backbone
from embedder.environment import quiet_transformers
from embedder.models.bases import BASES, file_sha256, weights_sha256
from embedder.models.card import write_card
from embedder.models.lora import adapter_config, adapter_tensors, has_adapter
from embedder.models.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST_NAME,
    POOLING_WEIGHTS,
    WHOLE,
    BaseRecord,
    Manifest,
)
from embedder.models.names import find_path
from embedder.models.st_layout import Decoder, write_layout
from embedder.variants import VariantSpec
from retrieval.disk import FULL_DISK, sync_path, sync_tree
from retrieval.errors import StorageError, UsageError

WeightsDtype = Literal["float32", "bfloat16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SavedWeights:
    """The tensors of a MODEL_DIR.

    Attributes
    ----------
    adapter : of adapter_model.safetensors; empty where there is no LoRA.
    adapter_config : of adapter_config.json.
    pooling : of pooling.safetensors; empty where the pooling has no weights.
    decoder : of a model with LoRA or saved whole, if it is known.
    whole : the backbone, where all of it is to be written.
    """

    adapter: Mapping[str, Tensor]
    adapter_config: Mapping[str, Any]
    pooling: Mapping[str, Tensor]
    decoder: Decoder | None = None
    whole: Backbone | None = None


def check_weights_dtype(name: str) -> None:
    """Raise UsageError unless weights can be saved in this dtype."""
    if name not in _DTYPES:
        raise UsageError(f"weights_dtype is {name!r}; expected {' or '.join(_DTYPES)}.")


def save_model(
    embedder: Embedder,
    folder: Path,
    *,
    record: Mapping[str, Any],
    weights_dtype: WeightsDtype = "float32",
    base: BaseRecord | None = None,
) -> None:
    """Write the embedder as a MODEL_DIR that appears whole or not at all.

    A backbone with LoRA is saved as its adapter. One without is saved whole where its weights
    are trainable (a full fine-tune, a merged model), and not at all where they are frozen.

    Parameters
    ----------
    folder : a new or an empty one.
    record : how the model was made; plain JSON data.
    weights_dtype : of the saved weights; bfloat16 halves the files and rounds the vectors.
    base : what training started from; ``embedder.spec.base`` by default.

    Raises
    ------
    UsageError : the folder is not empty, ``weights_dtype`` is another word, or the embedder was
        loaded with speed "fast" and computes in int8.
    StorageError : the disk is full or not writable; nothing is left behind.
    """
    if embedder.is_int8:
        raise UsageError("The model computes in int8; load it with speed='exact' to save it.")
    backbone, spec = embedder.backbone, embedder.spec
    path = None if spec.base in BASES else find_path(spec.base)
    if path is not None:
        spec = replace(spec, base=str(path.resolve()))
    base = base or BaseRecord(spec.base, spec.revision, backbone.identity, backbone.width)
    adapted = has_adapter(backbone)
    whole = not adapted and any(p.requires_grad for p in backbone.parameters())
    decoder = Decoder(backbone.model.config, backbone.tokenizer) if adapted or whole else None
    weights = SavedWeights(
        adapter_tensors(backbone) if adapted else {},
        adapter_config(backbone, spec.base) if adapted else {},
        {name: p.detach().cpu() for name, p in embedder.pooling.named_parameters()},
        decoder,
        backbone if whole else None,
    )
    write_model(folder, spec, base, weights, record=record, weights_dtype=weights_dtype)


def write_model(
    folder: Path,
    spec: VariantSpec,
    base: BaseRecord,
    weights: SavedWeights,
    *,
    record: Mapping[str, Any],
    weights_dtype: WeightsDtype = "float32",
) -> None:
    """Write a MODEL_DIR from its parts; see ``save_model``."""
    check_weights_dtype(weights_dtype)
    dtype = _DTYPES[weights_dtype]
    with new_folder(folder) as beside:
        if weights.adapter:
            (beside / ADAPTER_CONFIG).parent.mkdir()
            _write_json(beside / ADAPTER_CONFIG, weights.adapter_config)
            _write_tensors(beside / ADAPTER_WEIGHTS, weights.adapter, dtype)
        if weights.pooling:
            _write_tensors(beside / POOLING_WEIGHTS, weights.pooling, dtype)
        files = {
            name: file_sha256(beside / name)
            for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, POOLING_WEIGHTS)
            if (beside / name).is_file()
        }
        if weights.whole is not None:
            _write_whole(beside, weights.whole, dtype)
            spec = replace(spec, base=WHOLE, revision=None)
        sha256 = weights_sha256(beside) if weights.whole is not None else None
        manifest = Manifest(spec, base, record, files, sha256)
        _write_json(beside / "config_sentence_transformers.json", _st_config(spec))
        needs_us = write_layout(
            beside,
            manifest.spec,
            weights.decoder,
            base.width,
            {name: tensor.to(dtype) for name, tensor in weights.pooling.items()},
        )
        _write_text(beside / "README.md", write_card(manifest, needs_millpond=needs_us))
        _write_text(beside / MANIFEST_NAME, manifest.to_json())


def _write_whole(folder: Path, backbone: Backbone, dtype: torch.dtype) -> None:
    """Write the backbone as transformers' own folder."""
    model: Any = backbone.model
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=state)
        backbone.tokenizer.save_pretrained(folder)
    usual = (folder / "config.json").stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(usual)  # safetensors makes its files private, whatever the umask


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    plain = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(plain, metadata={"format": "pt"}))


def _st_config(spec: VariantSpec) -> dict[str, Any]:
    """Return config_sentence_transformers.json, which is read before the modules.

    ``encode`` without a prompt's name embeds a document, as ``encode_documents`` does.
    """
    return {
        "model_type": "SentenceTransformer",
        "prompts": {"query": spec.query_prompt, "document": spec.document_prompt},
        "default_prompt_name": "document" if spec.document_prompt else None,
        "similarity_fn_name": "cosine",
    }


def _write_json(path: Path, data: Any) -> None:
    _write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def check_new_folder(folder: Path) -> None:
    """Check that ``folder`` can be made: it does not exist yet, or is empty.

    Raises
    ------
    UsageError : it is a file, or holds something, which is left alone.
    """
    if folder.is_dir():
        held = next(iter(sorted(folder.iterdir())), None)
        if held is not None:
            raise UsageError(
                f"{folder}: the folder is not empty (it holds {held.name!r}) and is left alone. "
                f"Name a new or an empty one."
            )
    elif folder.exists():
        raise UsageError(f"{folder}: this is a file; name a new or an empty folder.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to ``folder`` when the block succeeds.

    Raises
    ------
    UsageError : see ``check_new_folder``.
    StorageError : the disk is full or not writable; nothing is left behind.
    """
    folder = folder.expanduser().resolve()
    check_new_folder(folder)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = folder.parent / f".{folder.name}.{os.getpid()}.writing"
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            yield beside
            sync_tree(beside)
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
            sync_path(folder.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def move_in(staged: Path, folder: Path, keep: Sequence[str] = ()) -> None:
    """Move the files of a saved model into a folder in place of what it holds.

    The manifest comes last: without it the folder is no model yet. Files named in ``keep`` stay
    where the folder has them.
    """
    for entry in sorted(staged.iterdir(), key=lambda entry: entry.name == MANIFEST_NAME):
        target = folder / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        if entry.name not in keep or not target.exists():
            entry.replace(target)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Raise a failure to write files as StorageError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in FULL_DISK
        problem = "the disk is full" if full else f"{getattr(error, 'strerror', None) or error}"
        raise StorageError(
            f"{folder}: the model cannot be written ({problem}). Nothing was left there: free "
            f"some space or name another place, and run the command again."
        ) from error
