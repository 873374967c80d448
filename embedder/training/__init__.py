"""Trains any variant from one config: ``train(load_config("run.toml"), "my-model")``.

``import embedder.training`` is cheap: torch is imported when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedder.training.config import TrainConfig, load_config
    from embedder.training.data import TrainingData, check_data
    from embedder.training.example import example_config
    from embedder.training.log import StepReport
    from embedder.training.trainer import train

__all__ = [
    "StepReport",
    "TrainConfig",
    "TrainingData",
    "check_data",
    "example_config",
    "load_config",
    "train",
]

_HOMES = {
    "StepReport": "embedder.training.log",
    "TrainConfig": "embedder.training.config",
    "TrainingData": "embedder.training.data",
    "check_data": "embedder.training.data",
    "example_config": "embedder.training.example",
    "load_config": "embedder.training.config",
    "train": "embedder.training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'embedder.training' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
