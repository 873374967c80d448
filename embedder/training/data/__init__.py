"""Training pairs: read from any layout, checked whole, and known as a whole."""

from embedder.training.data.layouts import Pair
from embedder.training.data.reading import PAIR_FILES
from embedder.training.data.sources import (
    KnownPairs,
    PairSource,
    TrainingData,
    check_data,
    hash_text,
)

__all__ = [
    "PAIR_FILES",
    "KnownPairs",
    "Pair",
    "PairSource",
    "TrainingData",
    "check_data",
    "hash_text",
]
