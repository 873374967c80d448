"""Trains any variant from one config: ``train(load_config("run.toml"), "my-model")``.

``import embedder.training`` is cheap: torch is imported when a name that needs it is first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retrieval import lazy_names

if TYPE_CHECKING:
    from embedder.training.config import TrainConfig, load_config
    from embedder.training.data import TrainingData, check_data
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "StepReport": "embedder.training.log",
        "TrainConfig": "embedder.training.config",
        "TrainingData": "embedder.training.data",
        "check_data": "embedder.training.data",
        "load_config": "embedder.training.config",
        "train": "embedder.training.trainer",
    },
)


def example_config() -> str:
    """Return a commented TOML config that runs."""
    return Path(__file__).with_name("example.toml").read_text(encoding="utf-8")
