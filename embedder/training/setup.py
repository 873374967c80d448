"""The model as it is trained: where its weights start, which of them move, what they need."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from embedder.embedder import Embedder
from embedder.engine.packing import recompute_contexts
from embedder.environment import choose_dtype
from embedder.models.lora import (
    adapter_parameters,
    adapter_scaling,
    add_adapter,
    copy_tensors,
    has_adapter,
    leave_casts_to_autocast,
)
from embedder.models.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    POOLING_WEIGHTS,
    Manifest,
    read_manifest,
    read_tensors,
)
from embedder.models.names import builtin_folder
from embedder.pooling.registry import Headed
from embedder.training.config import OptimiserConfig, TrainConfig
from embedder.training.distillation.projection import PROJECTION
from embedder.training.processes import Processes
from embedder.variants import VariantSpec
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify
from retrieval.typed import find_differences, load_json, plain_data

_SAME = ("base", "pooling", "attention", "base_layers")


def load_start(embedder: Embedder, model: str, notify: Notify) -> None:
    """Put the trained weights of a model folder, or a built-in model, into ``embedder``.

    Parameters
    ----------
    embedder : as ``build_model`` made it: with a fresh LoRA where one is trained.

    Raises
    ------
    SourceNotFoundError : there is no such model.
    UsageError : the model is another variant, or its LoRA has another rank or alpha.
    ModelError : its weights are damaged, or belong to another base.
    """
    folder = _folder(model)
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    _check_same(embedder, manifest, model)
    if has_adapter(embedder.backbone):
        _check_scaling(embedder, folder, model)
        saved = read_tensors(folder / ADAPTER_WEIGHTS)
        copy_tensors(adapter_parameters(embedder.backbone), saved, folder / ADAPTER_WEIGHTS)
    module = embedder.pooling
    if isinstance(module, Headed) and embedder.spec.head and not manifest.spec.head:
        module = module.inner  # what is trained adds a projection to what it starts from
    pooling = dict(module.named_parameters())
    if pooling:
        copy_tensors(pooling, read_tensors(folder / POOLING_WEIGHTS), folder / POOLING_WEIGHTS)
    notify(f"Training goes on from {model}.")


def describe_start(model: str) -> dict[str, Any]:
    """Return what a model trained from this one records of it: its weights and its own record."""
    manifest = read_manifest(_folder(model))
    return {"trained_sha256": manifest.trained_sha256, "record": dict(manifest.record)}


def _folder(model: str) -> Path:
    return builtin_folder(model) or Path(model).expanduser()


def _check_same(embedder: Embedder, manifest: Manifest, model: str) -> None:
    """Raise unless the weights have a place in this embedder."""
    if manifest.is_whole or manifest.has_adapter != has_adapter(embedder.backbone):
        if manifest.is_whole:
            held = f"a whole base. Name it as model.base instead: base = {model!r}."
        elif manifest.has_adapter:
            held = 'LoRA weights. Set adapter.kind to "lora".'
        else:
            held = "no LoRA weights."
        raise UsageError(f"adapter.start is {model!r}, which holds {held}")
    pairs = find_differences(_deciding(manifest.spec), _deciding(embedder.spec))
    differing = [f"{name} is {theirs!r} there and {ours!r} here" for name, theirs, ours in pairs]
    if differing:
        raise UsageError(
            f"adapter.start is {model!r}, a model of another variant: {'; '.join(differing)}. "
            f"Set [model] to the same, or leave adapter.start out."
        )
    if manifest.base.identity != embedder.backbone.identity:
        raise ModelError(
            f"{model} was trained on other weights of {manifest.base.name!r} "
            f"({manifest.base.identity[:12]} then, {embedder.backbone.identity[:12]} now)."
        )


def _deciding(spec: VariantSpec) -> dict[str, Any]:
    """Return what decides which weights there are; prompts and lengths may change."""
    options = plain_data(spec.pooling_options)
    del options["seed"], options["init"]
    return {**{name: getattr(spec, name) for name in _SAME}, "pooling_options": options}


def saved_scaling(folder: Path) -> tuple[int, int]:
    """Return the rank and alpha of the LoRA in a MODEL_DIR."""
    path = folder / ADAPTER_CONFIG
    try:
        saved = load_json(path)
        return int(saved["r"]), int(saved["lora_alpha"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the folder again.") from error


def _check_scaling(embedder: Embedder, folder: Path, model: str) -> None:
    """Raise UsageError where the LoRA would be read with another rank or strength."""
    here = adapter_scaling(embedder.backbone)
    for name, old, new in zip(("rank", "alpha"), saved_scaling(folder), here, strict=True):
        if old != new:
            raise UsageError(
                f"adapter.{name} is {new}, but {model} was trained with {old}. "
                f"Set adapter.{name} = {old}, or leave adapter.start out."
            )


def build_model(
    config: TrainConfig,
    device: torch.device,
    notify: Notify,
    project: Callable[[Embedder], Embedder] | None = None,
) -> Embedder:
    """Return the config's model with only the weights to be trained requiring gradients.

    In bfloat16 the backbone computes in autocast; weights that are trained stay float32.

    Parameters
    ----------
    project : puts the layer behind the model that it is to end in, if any.

    Raises
    ------
    UsageError : a Matryoshka dimension is longer than the vectors, or ``adapter.start`` is a
        model of another variant.
    """
    dtype = _dtype(config, device)
    frozen_dtype = torch.float32 if config.adapter.kind == "full" else dtype
    embedder = Embedder.from_spec(
        config.model, device=str(device), dtype=frozen_dtype, notify=notify
    )
    if project is not None:
        embedder = project(embedder)
    check_matryoshka(config, embedder)
    choose_trained(config, embedder, notify)
    backbone: Any = embedder.backbone
    if config.gradient_checkpointing:
        # Not by transformers' own switch: it is renamed between its versions, and in some of them
        # the hooks that read one vector a layer would be inside what is computed again.
        for block in backbone.blocks():
            block.forward = partial(
                checkpoint, block.forward, use_reentrant=False, context_fn=recompute_contexts
            )
    if dtype is torch.bfloat16:
        # Around the backbone alone: poolings compute in float32.
        model = backbone.model
        model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
        leave_casts_to_autocast(embedder.backbone)
    return embedder


def check_matryoshka(config: TrainConfig, embedder: Embedder) -> None:
    """Raise UsageError where a Matryoshka dimension is longer than the vectors."""
    for dimension in config.loss.matryoshka_dimensions:
        if dimension > embedder.dimension:
            raise UsageError(
                f"loss.matryoshka_dimensions names {dimension}, but the vectors have "
                f"{embedder.dimension}."
            )


def choose_trained(config: TrainConfig, embedder: Embedder, notify: Notify) -> None:
    """Let only the weights that are trained require gradients, and put them where they start."""
    backbone: Any = embedder.backbone
    backbone.requires_grad_(config.adapter.kind == "full")
    if config.adapter.kind == "lora":
        add_adapter(embedder.backbone, config.adapter, seed=config.seed)
    embedder.pooling.requires_grad_(True)
    if config.adapter.start is not None:
        load_start(embedder, config.adapter.start, notify)


def unwrap_model(embedder: Embedder) -> None:
    """Undo what ``build_model`` put around forward passes for training."""
    for module in (embedder.backbone.model, *embedder.backbone.blocks()):
        vars(module).pop("forward", None)
    leave_casts_to_autocast(embedder.backbone, False)


def _dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return named.get(config.dtype) or choose_dtype(device)


def library_versions() -> dict[str, str]:
    """Return the installed version of each library that decides the weights."""
    found = {}
    for name in ("millpond", "torch", "transformers", "peft", "accelerate", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def trained_parameters(embedder: Embedder) -> list[nn.Parameter]:
    """Return the parameters that require gradients."""
    return [parameter for parameter in embedder.parameters() if parameter.requires_grad]


def build_optimiser(embedder: Embedder, config: OptimiserConfig) -> torch.optim.AdamW:
    """Return AdamW over the trained weights: vectors undecayed.

    The pooling has its own rate, and so has the projection to a teacher's width.
    """
    pooling_rate = config.pooling_learning_rate or config.learning_rate
    pooling = {id(parameter) for parameter in embedder.pooling.parameters()}
    pooling |= {id(p) for name, p in embedder.named_parameters() if name.startswith(PROJECTION)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in trained_parameters(embedder):
        rate = pooling_rate if id(parameter) in pooling else config.learning_rate
        decay = config.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items()
        ]
    )


def rate_factor(config: OptimiserConfig, step: int, steps: int) -> float:
    """Return the share of the learning rate, 0 to 1, that a step of a run has, counted from 0."""
    warmup = round(config.warmup_ratio * steps)
    if step < warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    shapes = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return shapes[config.schedule]


_SAMPLED_STEPS = 32
_SAMPLED_PAIRS = 4096
_WIDTHS = ("hidden_size", "intermediate_size")
_NUMBERS_PER_WIDTH, _NUMBERS_PER_INTERMEDIATE = 12, 6


def memory_warning(
    embedder: Embedder,
    config: TrainConfig,
    processes: Processes,
    steps: range,
    count_tokens: Callable[[int], int],
) -> str | None:
    """Return a line for the user if a step may need more memory than is free, else None.

    The system ends a process that takes too much without a word from it. Only the CPU in float32
    is looked at: its need was measured (docs/training.md), and a GPU that is full raises an error.

    Parameters
    ----------
    count_tokens : returns the tokens of a step, those of all processes together.
    """
    if config.gradient_cache or config.gradient_checkpointing or processes.device.type != "cpu":
        return None
    held = graph_bytes(embedder)
    if held is None or len(steps) == 0:
        return None
    sampled = max(1, min(_SAMPLED_STEPS, _SAMPLED_PAIRS // config.batch_pairs, len(steps)))
    places = np.linspace(0, len(steps) - 1, sampled).astype(int).tolist()
    tokens = max(count_tokens(steps[place]) for place in places)
    here = min(processes.count, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    needed = tokens * held * here // processes.count
    free = int(psutil.virtual_memory().available)
    if needed <= free:
        return None
    fitting = max(2, config.batch_pairs * free // needed)
    return (
        f"Warning: steps of up to {tokens:,} tokens may need {needed / 1e9:.0f} GB and "
        f"{free / 1e9:.0f} GB are free, so the system may end the run. With gradient_cache = true "
        f"it fits, a third slower; so it may with batch_pairs = {fitting}."
    )


def graph_bytes(embedder: Embedder) -> int | None:
    """Return about how many bytes per token the activations take until the gradient is there.

    None where the base does not tell its widths, or does not compute in float32.
    """
    backbone: Any = embedder.backbone
    shape = vars(backbone.model.config)
    if not shape.keys() >= set(_WIDTHS) or backbone.model.dtype is not torch.float32:
        return None
    width, intermediate = (int(shape[name]) for name in _WIDTHS)
    numbers = _NUMBERS_PER_WIDTH * width + _NUMBERS_PER_INTERMEDIATE * intermediate
    return 4 * numbers * int(backbone.layer_count)
