"""Training pairs: read from any layout, checked whole, and known as a whole."""

from embedder.training.data.known import KnownPairs, hash_text
from embedder.training.data.layouts import Pair
from embedder.training.data.reading import PAIR_FILES
from embedder.training.data.sources import PairSource, TrainingData, check_data

__all__ = [
    "PAIR_FILES",
    "KnownPairs",
    "Pair",
    "PairSource",
    "TrainingData",
    "check_data",
    "hash_text",
]
