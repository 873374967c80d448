"""The vocabulary that every other package shares. Imports neither torch nor faiss."""

from retrieval.corpus import Corpus, read_corpus, read_queries
from retrieval.errors import MillpondError
from retrieval.protocols import Encoder, Progress, VectorIndex, Vectors
from retrieval.types import Document, Fingerprint, Hit, Query, Scalar, check_fingerprints

__all__ = [
    "Document",
    "Query",
    "Hit",
    "Scalar",
    "Corpus",
    "read_corpus",
    "read_queries",
    "Encoder",
    "VectorIndex",
    "Vectors",
    "Progress",
    "Fingerprint",
    "check_fingerprints",
    "MillpondError",
]
