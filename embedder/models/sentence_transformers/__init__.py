"""Models that sentence-transformers computes: those named ``st:...``, and published encoders."""

from embedder.models.sentence_transformers.encoder import SentenceTransformersEncoder
from embedder.models.sentence_transformers.load import (
    find_folder,
    load_sentence_transformers,
    needs_sentence_transformers,
)
from embedder.models.sentence_transformers.reranker import Reranker, load_reranker

__all__ = [
    "Reranker",
    "SentenceTransformersEncoder",
    "find_folder",
    "load_reranker",
    "load_sentence_transformers",
    "needs_sentence_transformers",
]
