"""Trained models on disk: a MODEL_DIR is written whole or not at all, and read back the same.

See ``embedder.models.manifest`` for the layout. Weights are safetensors; nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from embedder.attention import get_attention
from embedder.embedder import Embedder
from embedder.engine.backbone import Backbone, load_backbone
from embedder.engine.speed import Speed
from embedder.environment import choose_device, choose_dtype, quiet_transformers
from embedder.models.bases import BASES
from embedder.models.cache import file_sha256, weights_sha256
from embedder.models.card import write_card
from embedder.models.locate import locate_base
from embedder.models.lora import (
    adapter_config,
    adapter_tensors,
    copy_tensors,
    has_adapter,
    load_adapter,
    merge_adapter,
)
from embedder.models.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST_NAME,
    POOLING_WEIGHTS,
    WHOLE,
    BaseRecord,
    Manifest,
    read_manifest,
    read_tensors,
)
from embedder.models.new_folder import new_folder
from embedder.variants import VariantSpec
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify

__all__ = [
    "SavedWeights",
    "WeightsDtype",
    "check_weights_dtype",
    "load_model",
    "save_model",
    "write_model",
]

WeightsDtype = Literal["float32", "bfloat16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_ST_MODULE = "embedder.models.sentence_transformers_module.MillpondModule"


@dataclass(frozen=True)
class SavedWeights:
    """The tensors of a MODEL_DIR.

    Attributes
    ----------
    adapter : of adapter_model.safetensors; empty where there is no LoRA.
    adapter_config : of adapter_config.json.
    pooling : of pooling.safetensors; empty where the pooling has no weights.
    whole : the backbone, where all of it is to be written.
    """

    adapter: Mapping[str, Tensor]
    adapter_config: Mapping[str, Any]
    pooling: Mapping[str, Tensor]
    whole: Backbone | None = None


def check_weights_dtype(name: str) -> None:
    """Raise UsageError unless weights can be saved in this dtype."""
    if name not in _DTYPES:
        raise UsageError(f"weights_dtype is {name!r}; accepted: {', '.join(_DTYPES)}.")


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
    record : how the model was made, as JSON can hold it.
    weights_dtype : of the saved weights; bfloat16 halves the files and rounds the vectors.
    base : what training started from, where that is not ``embedder.spec.base``.

    Raises
    ------
    UsageError : the folder is not empty, ``weights_dtype`` is another word, or the embedder was
        loaded with speed "fast" and computes in int8.
    StorageError : the disk is full or not writable; nothing is left behind.
    """
    if embedder.is_int8:
        raise UsageError("The model computes in int8; load it with speed='exact' to save it.")
    backbone, spec = embedder.backbone, embedder.spec
    if spec.base not in BASES and Path(spec.base).expanduser().exists():
        spec = replace(spec, base=str(Path(spec.base).expanduser().resolve()))
    base = base or BaseRecord(spec.base, spec.revision, backbone.identity, backbone.width)
    adapted = has_adapter(backbone)
    whole = not adapted and any(p.requires_grad for p in backbone.parameters())
    weights = SavedWeights(
        adapter_tensors(backbone) if adapted else {},
        adapter_config(backbone, spec.base) if adapted else {},
        {name: p.detach().cpu() for name, p in embedder.pooling.named_parameters()},
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
        _write_json(beside / "modules.json", _st_modules())
        _write_text(beside / "README.md", write_card(manifest))
        _write_text(beside / MANIFEST_NAME, manifest.to_json())


def load_model(
    folder: Path | str,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    batch_tokens: int | None = None,
    speed: Speed = "exact",
    notify: Notify | None = None,
    merge: bool = True,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Embedder:
    """Return the trained model of a MODEL_DIR.

    Parameters
    ----------
    speed : "exact" or "fast"; see ``Embedder``.
    name : what a user types to load this model again; the folder's full path by default.
    options : fields of VariantSpec that replace the saved ones; see ``embedder.models.names``.
    merge : whether LoRA is folded into the base's weights: faster, and equal to 1e-5 in float32.

    Raises
    ------
    SourceNotFoundError : the folder holds no saved model.
    ModelError : a file is missing or damaged, or the base is not the one it was trained on.
    UnknownNameError, UsageError, DownloadError, StorageError : as ``Embedder.load``.
    """
    folder = Path(folder).expanduser().resolve()
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    chosen = choose_device(device)
    backbone = _load_base(
        folder, manifest, chosen, dtype or choose_dtype(chosen), notify or (lambda line: None)
    )
    if manifest.has_adapter:
        adapter = folder / ADAPTER_WEIGHTS
        load_adapter(backbone, adapter.parent, read_tensors(adapter))
        if merge:
            merge_adapter(backbone)
    elif not manifest.is_whole:
        backbone.requires_grad_(False)
    embedder = Embedder(
        replace(_loadable_spec(folder, manifest), **(options or {})),
        backbone,
        name=name or str(folder),
        trained=True,
        trained_sha256=manifest.trained_sha256,
        batch_tokens=batch_tokens,
        speed=speed,
        notify=notify,
    )
    pooling = dict(embedder.pooling.named_parameters())
    saved = read_tensors(folder / POOLING_WEIGHTS) if POOLING_WEIGHTS in manifest.files else {}
    copy_tensors(pooling, saved, folder / POOLING_WEIGHTS)
    return embedder


def _loadable_spec(folder: Path, manifest: Manifest) -> VariantSpec:
    """Return the spec with a base that can be loaded from anywhere."""
    return replace(manifest.spec, base=str(folder)) if manifest.is_whole else manifest.spec


def _load_base(
    folder: Path, manifest: Manifest, device: torch.device, dtype: torch.dtype, notify: Notify
) -> Backbone:
    """Return the backbone that the saved weights belong to, or raise ModelError."""
    spec = _loadable_spec(folder, manifest)
    if not manifest.is_whole:
        try:
            located = locate_base(spec.base, spec.revision, notify)
        except UsageError as error:
            raise ModelError(
                f"{folder}: its base {spec.base!r} is not here any more. {error}"
            ) from error
        if located.identity:
            _check_identity(folder, manifest.base, located.identity)
        else:  # of the hub: the commit, wherever the branch is now
            spec = replace(spec, revision=manifest.base.identity)
    backbone = load_backbone(spec, get_attention(spec.attention), device, dtype, notify)
    if not manifest.is_whole:
        _check_identity(folder, manifest.base, backbone.identity)
    return backbone


def _check_identity(folder: Path, base: BaseRecord, found: str) -> None:
    if found != base.identity:
        raise ModelError(
            f"{folder} was trained on {base.name!r} with the identity {base.identity}, but what "
            f"has this name here is {found}. Its vectors would be wrong: bring back the base it "
            f"was trained on, or train again."
        )


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
    """Return what sentence-transformers reads before the modules.

    ``encode`` without a prompt's name embeds a document, as ``encode_documents`` does.
    """
    return {
        "model_type": "SentenceTransformer",
        "prompts": {"query": spec.query_prompt, "document": spec.document_prompt},
        "default_prompt_name": "document" if spec.document_prompt else None,
        "similarity_fn_name": "cosine",
    }


def _st_modules() -> list[dict[str, Any]]:
    return [{"idx": 0, "name": "0", "path": "", "type": _ST_MODULE}]


def _write_json(path: Path, data: Any) -> None:
    _write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
