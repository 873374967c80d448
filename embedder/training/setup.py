"""The model as it is trained: which weights move, at what rate, in which dtype."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from embedder.bases import Notify
from embedder.device import choose_dtype
from embedder.embedder import Embedder
from embedder.engine.packing import recompute_contexts
from embedder.lora import add_adapter
from embedder.training.config import OptimiserConfig, TrainConfig
from embedder.training.warm_start import load_start
from retrieval.errors import UsageError

__all__ = [
    "build_model",
    "build_optimiser",
    "build_schedule",
    "library_versions",
    "trained_parameters",
    "unwrap_model",
]


def build_model(config: TrainConfig, device: torch.device, notify: Notify) -> Embedder:
    """Return the config's model with only the weights to be trained requiring gradients.

    In bfloat16 the backbone computes in autocast; weights that are trained stay float32.

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
    for dimension in config.loss.matryoshka_dimensions:
        if dimension > embedder.dimension:
            raise UsageError(
                f"loss.matryoshka_dimensions names {dimension}, but the vectors have "
                f"{embedder.dimension}."
            )
    backbone: Any = embedder.backbone
    backbone.requires_grad_(config.adapter.kind == "full")
    if config.adapter.kind == "lora":
        add_adapter(embedder.backbone, config.adapter.lora_options(), seed=config.seed)
    embedder.pooling.requires_grad_(True)
    if config.adapter.start is not None:
        load_start(embedder, config.adapter.start, notify)
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
    return embedder


def unwrap_model(embedder: Embedder) -> None:
    """Take off what ``build_model`` put around forward passes for training."""
    for module in (embedder.backbone.model, *embedder.backbone.blocks()):
        vars(module).pop("forward", None)


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
    """Return AdamW over the trained weights: the pooling at its own rate, vectors undecayed."""
    pooling_rate = config.pooling_learning_rate or config.learning_rate
    pooling = {id(parameter) for parameter in embedder.pooling.parameters()}
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


def build_schedule(
    optimiser: torch.optim.Optimizer, config: OptimiserConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning-rate schedule over so many steps."""
    from transformers import get_scheduler

    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    schedule: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        name,
        optimiser,
        num_warmup_steps=round(config.warmup_ratio * steps),
        num_training_steps=steps,
    )
    return schedule
