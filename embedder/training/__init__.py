"""Trains any variant from one config: ``train(load_config("run.toml"), "my-model")``."""

from embedder.training.config import TrainConfig, example_config, load_config
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
