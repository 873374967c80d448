"""Adapters in peft's format that are named as models: their base, and folding them into it.

A folder or hub id with adapter_config.json is an adapter of the base that this file names, which
may be an adapter itself (LLM2Vec trains one on top of another); they are applied in that order.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedder.environment import first_line
from embedder.models.bases import read_tensors
from embedder.models.foreign.files import fetch_file, read_model_json
from embedder.models.names import find_path, is_hub_id
from retrieval.errors import ModelError, UsageError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")
_NOT_READ = ("lm_head.", "model.lm_head.", "score.")
"""Beginnings of names of what stands behind the last layer, which an embedding does not read."""


@dataclass(frozen=True)
class Adapter:
    """One adapter whose files are here.

    Attributes
    ----------
    name : as the user or another adapter named it.
    folder : holds adapter_config.json and adapter_model.safetensors.
    base : what its configuration names as its base.
    revision : of a hub id.
    """

    name: str
    folder: Path
    base: str
    revision: str | None = None

    @property
    def place(self) -> str:
        """Its folder or hub id."""
        return str(find_path(self.name) or self.name)


def read_adapter(name: str, revision: str | None = None) -> Adapter | None:
    """Return the adapter of this folder or hub id; None where it is none.

    Raises
    ------
    ModelError : it is no LoRA, names no base, or has no safetensors; or a file cannot be read.
    """
    path = find_path(name)
    if not (is_hub_id(name) if path is None else path.is_dir()):
        return None
    place = str(path or name)
    config = read_model_json(place, CONFIG, revision)
    if config is None:
        return None
    if not isinstance(config, dict) or not config.get("peft_type"):
        raise ModelError(f"{name}: its {CONFIG} names no peft_type. Copy the folder again.")
    if config["peft_type"] != "LORA":
        raise ModelError(
            f"{name} is an adapter of the kind {config['peft_type']}; expected LORA (with DoRA, "
            f"rsLoRA and the like). Fold it into its base with peft's merge_and_unload, save that "
            f"with save_pretrained, and name the folder."
        )
    folder = _fetch(name, place, revision)
    base = config.get("base_model_name_or_path")
    return Adapter(name, folder, base if isinstance(base, str) else "", revision)


def _fetch(name: str, place: str, revision: str | None) -> Path:
    """Return the folder with configuration and weights; those of a hub id are fetched."""
    whole = [Path(place) / file for file in ("model.safetensors", "model.safetensors.index.json")]
    if any(path.is_file() for path in whole):
        raise ModelError(
            f"{name} holds a whole model and an adapter, {CONFIG}; expected one of them. Move the "
            f"adapter, or the model, to a folder of its own and name that."
        )
    try:
        config, weights = (fetch_file(place, file, revision) for file in (CONFIG, WEIGHTS))
    except OSError as error:
        raise ModelError(f"The adapter {name} cannot be loaded: {first_line(error)}") from error
    if config is None or weights is None:
        pickled = (Path(place) / WEIGHTS).with_suffix(".bin")
        note = (
            f"{pickled.name} is not read, since pickle files can run code; load and save it once "
            f"with peft, which writes safetensors."
            if pickled.is_file()
            else "Copy the folder again."
        )
        raise ModelError(f"The adapter {name} has no {WEIGHTS}. {note}")
    return config.parent


def find_chain(name: str, revision: str | None, typed_base: str) -> tuple[str, list[Adapter]]:
    """Return the base behind a name, and the adapters to fold into it, in that order.

    Parameters
    ----------
    typed_base : of the adapter, in place of the one that its configuration names; "" for that.

    Raises
    ------
    UsageError : a base was typed, and ``name`` is no adapter.
    ModelError : as ``read_adapter``; or adapters name each other.
    """
    adapters: list[Adapter] = []
    while adapter := read_adapter(name, revision):
        base = typed_base or adapter.base
        if not base:
            raise ModelError(
                f"The adapter {adapter.name} names no base (base_model_name_or_path of its "
                f"{CONFIG}). Type it: {adapter.name},adapter_base=BASE."
            )
        if any(adapter.folder == other.folder for other in adapters):
            raise ModelError(
                f"The adapter {adapter.name} names itself as its base. Type the base that it was "
                f"trained on: {adapter.name},adapter_base=BASE."
            )
        adapters.append(replace(adapter, base=base))
        name, revision, typed_base = base, None, ""
    if typed_base:
        raise UsageError(f"adapter_base is {typed_base!r}, but {name} is no adapter; leave it out.")
    return name, adapters[::-1]


def merge_adapters(
    model: nn.Module, adapters: Sequence[Adapter], base_layers: int | None = None
) -> nn.Module:
    """Return the model with adapters folded in, in this order, as peft does it.

    Parameters
    ----------
    base_layers : how many of the base's layers the model has kept; None for all.

    Raises
    ------
    ModelError : an adapter does not fit the model.
    """
    for adapter in adapters:
        model = _merge(model, adapter, base_layers)
    return model


def _merge(model: nn.Module, adapter: Adapter, base_layers: int | None) -> nn.Module:
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict

    tensors = _read_weights(model, adapter, base_layers)
    dtype = next(model.parameters()).dtype
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # peft 0.21 asks transformers 5.23 for an old name
        try:
            config: Any = LoraConfig.from_pretrained(str(adapter.folder))
            config.inference_mode = True
            wrapped: Any = PeftModel(model, config)
            read: Any = set_peft_model_state_dict(wrapped, tensors)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise _unfit(adapter, _first_line(error)) from error
        missing = [name for name in read.missing_keys if "lora_" in name or "modules_to" in name]
        wrong = [*read.unexpected_keys, *missing]
        if wrong:
            kind = "holds" if read.unexpected_keys else "lacks"
            raise _unfit(adapter, f"it {kind} {wrong[0]!r} ({len(wrong)} such tensors)")
        merged: nn.Module = wrapped.merge_and_unload(safe_merge=True)
    vars(merged).pop("peft_config", None)
    merged.requires_grad_(True)
    return merged.to(dtype)


def _unfit(adapter: Adapter, problem: str) -> ModelError:
    return ModelError(
        f"The adapter {adapter.name} does not fit {adapter.base!r}: {problem}. It was made for "
        f"another base; type the right one as {adapter.name},adapter_base=BASE."
    )


def _read_weights(model: nn.Module, adapter: Adapter, base_layers: int | None) -> dict[str, Tensor]:
    """Return the adapter's tensors under the names that a model without a head has."""
    read = read_tensors(adapter.folder / WEIGHTS)
    inner = _PREFIX + "model." if not hasattr(model, "model") else _PREFIX
    found = {}
    for name, tensor in read.items():
        layer = _LAYER.search(name)
        is_cut = base_layers and layer and int(layer[1]) >= base_layers
        if is_cut or name.removeprefix(_PREFIX).startswith(_NOT_READ):
            continue
        found[_PREFIX + name.removeprefix(inner) if name.startswith(inner) else name] = tensor
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:2]).removesuffix(".")
